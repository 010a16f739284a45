"""CPython's own tests (Debian's libpython3.11-testsuite, unpacked), compared method by method."""
import os
import re
import shutil

import debian
from suite import HERE, Job, Suite

PYTHON = "/usr/bin/python3.11"
SECONDS = 1500  # of one module
ASYNCIO = ["test_base_events", "test_buffered_proto", "test_context", "test_events", "test_futures", "test_futures2",
           "test_locks", "test_pep492", "test_proactor_events", "test_protocols", "test_queues", "test_runners",
           "test_selector_events", "test_sendfile", "test_server", "test_sock_lowlevel", "test_ssl", "test_sslproto",
           "test_streams", "test_subprocess", "test_taskgroups", "test_tasks", "test_threads", "test_timeouts",
           "test_transports", "test_unix_events", "test_waitfor", "test_windows_events", "test_windows_utils"]
MODULES = ["test_socket", *(f"test_asyncio.{m}" for m in ASYNCIO),
           "test_selectors", "test_select", "test_poll", "test_epoll", "test_subprocess", "test_signal", "test_fork1",
           "test_ssl", "test_ftplib", "test_httplib", "test_httpservers", "test_urllib2_localnet", "test_smtplib",
           "test_poplib", "test_imaplib", "test_telnetlib", "test_xmlrpc", "test_socketserver", "test_asyncore",
           "test_asynchat", "test_multiprocessing_fork", "test_multiprocessing_spawn", "test_multiprocessing_forkserver",
           "test_concurrent_futures", "test_threading", "test_os", "test_posix", "test_pty", "test_eintr",
           "test_faulthandler", "test_wsgiref", "test_logging", "test_nntplib", "test_docxmlrpc", "test_robotparser",
           "test_sys", "test_io", "test_fcntl", "test_mmap", "test_exceptions"]


class CPython(Suite):
    name = "cpython"

    def prepare(self, folder):
        """One package `test`: its frame comes with the standard library's package, the tests with the test suite's."""
        for name in ("libpython3.11-stdlib", "libpython3.11-testsuite"):
            deb = debian.package(name, f"{folder}/{name}")
            shutil.copytree(f"{deb}/usr/lib/python3.11/test", f"{folder}/lib/test", dirs_exist_ok=True)
            shutil.rmtree(deb)

    def open(self, folder):
        self.lib, self.scratch = f"{folder}/lib", f"{folder}/scratch"
        os.makedirs(self.scratch, exist_ok=True)

    def jobs(self):
        return [self.job(m, []) for m in MODULES]

    def job(self, module, patterns):
        env = {"PYTHONPATH": self.lib, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": self.scratch, "PYTHONHASHSEED": "1"}
        return Job(module, [PYTHON, f"{HERE}/cpython_run.py", module, *patterns], self.scratch, SECONDS, env)

    def results(self, job, outcome):
        found = dict(re.findall(r"(?m)^@@ ([^\t\n]*)\t(.*)$", outcome.out))
        found[job.name] = "ran" if found and outcome.code in (0, 2) else outcome.word  # 2: of a test, which is named
        return found

    def narrow(self, job, tests):
        patterns = [t for t in tests if t != job.name]
        return self.job(job.name, patterns) if patterns else job

    def source(self, path):
        return f"{self.lib}/test/{path}"


SUITE = CPython()
