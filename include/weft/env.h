/* Names that users set: environment of the shim, default paths, wire names. design: "Names that users rely on". */
#ifndef WEFT_ENV_H
#define WEFT_ENV_H

#define WEFT_VERSION "0.1.0"

#define WEFT_ENV_SERVICE "WEFT_SERVICE"
#define WEFT_ENV_SOCKET "WEFT_SOCKET"
#define WEFT_ENV_MODE "WEFT_MODE"
#define WEFT_ENV_NO_BROKER "WEFT_NO_BROKER"
#define WEFT_ENV_LABELS "WEFT_LABELS"
#define WEFT_ENV_LOG "WEFT_LOG"

#define WEFT_ENV_EXEC \
	"WEFT_EXEC" /* ours alone: what an exec hands over, "descriptor:inode,listen" */

#define WEFT_RUN_DIR "/run/weft"
#define WEFT_SOCKET_NAME "weftd.sock"
#define WEFT_SOCKET_DEFAULT WEFT_RUN_DIR "/" WEFT_SOCKET_NAME
#define WEFT_NAMES_NAME "names" /* files beside the socket */
#define WEFT_BOARD_NAME "board"
#define WEFT_IDENTITY_DIR "identity"

#define WEFT_NAMESPACE_DEFAULT "default"
#define WEFT_NAMESPACE_ROOT "istio-system"
#define WEFT_TRUST_DOMAIN_DEFAULT "cluster.local"

/* TLS: what a weft client offers (RFC 7301), and the exact bytes of the ALPN extension's list. */
#define WEFT_ALPN "weft/1"
#define WEFT_ALPN_WIRE "\x06weft/1"

#define WEFT_VIP4_CIDR "239.240.0.0/16"
#define WEFT_VIP6_PREFIX "ff3e:7765:6674::/48"

#endif
