/* Every bound of weft in one place. A buffer, queue, table or message takes its maximum from here. */
#ifndef WEFT_LIMITS_H
#define WEFT_LIMITS_H

#define WEFT_HOST_MAX 253    /* bytes of a DNS name, RFC 1035 section 2.3.4 */
#define WEFT_LABEL_MAX 63    /* bytes of a namespace, service or version name, RFC 1123 */
#define WEFT_SERVICE_MAX 255 /* bytes of "<service>.<namespace>" or of a dotted host */
#define WEFT_SPIFFE_MAX 512  /* bytes of a SPIFFE ID that weft issues or accepts */
#define WEFT_SPEC_MAX 1024   /* bytes of WEFT_SERVICE, and of WEFT_LABELS */
#define WEFT_LABELS_MAX 64   /* labels of one instance */
#define WEFT_PORTS_MAX 64    /* ports of one process or service */

#define WEFT_REQUEST_MAX (64u << 10) /* bytes of a request to weftd, without its frame header */
#define WEFT_REPLY_MAX (4u << 20)    /* bytes of a reply of weftd */
#define WEFT_DECODED_MAX (64u << 20) /* bytes that a decoded message may take in memory */
#define WEFT_WIRE_DEPTH 16           /* nested structs in a message */
#define WEFT_LIST_MAX 65536          /* elements of one list in a message */
#define WEFT_CSR_MAX 4096            /* bytes of a certificate request, DER */
#define WEFT_CERT_MAX 8192           /* bytes of one certificate, DER */
#define WEFT_CHAIN_MAX 8             /* certificates in a chain */
#define WEFT_BUNDLE_MAX 64           /* trust anchors in a bundle */

#define WEFT_DOCUMENT_MAX (1u << 20) /* bytes of one JSON document in Redis */
#define WEFT_CLUSTERS_MAX 64         /* destinations of one service's routes */
#define WEFT_ENDPOINTS_MAX 16384     /* endpoints of one destination */

#define WEFT_NAMES_HALF (16u << 20) /* bytes of one half of the names memory; sparse until used */
#define WEFT_IDENTITY_HALF \
	(256u << 10)          /* bytes of one half of an identity memory; sparse until used */
#define WEFT_GENERATIONS 4096 /* counters of the generation board; a power of two */

#define WEFT_HEARTBEAT_MS 500         /* weftd writes its heartbeat this often */
#define WEFT_HEARTBEAT_STALE_MS 3000  /* a guest that sees an older one tries one HELLO */
#define WEFT_EXCHANGE_MS 2000         /* longest exchange of a guest with weftd */
#define WEFT_CONNECT_TIMEOUT_MS 10000 /* connectTimeout where nothing else is said (Istio) */
#define WEFT_HANDSHAKE_MS 10000       /* a peer that takes longer for its handshake is dropped */
#define WEFT_ANSWERED_MS \
	60000             /* the same for a client that was answered: its program may be busy */
#define WEFT_GRACE_MS 200 /* connect() waits so long for a peer that is slow to shake hands */
#define WEFT_SNIFF_MS 200 /* protocolDetectionTimeout where nothing else is said */
#define WEFT_SNIFF_SETTLING_MS \
	1000 /* the same while the mode changes: many a client comes with a ClientHello, and none may be lost */
#define WEFT_RECORD_MAX 16384 /* plaintext bytes of a TLS record, RFC 8446 section 5.1 */

#endif
