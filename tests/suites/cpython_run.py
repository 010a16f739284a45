"""Runs one module of CPython's tests by its own regrtest, and prints `@@ TEST<tab>RESULT` for each method.

cpython_run.py MODULE [METHOD...]: runs itself as a child, which writes results into a file as it goes. A child that dies or
sticks in a method costs that method; another goes on with what is left."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

SECONDS = int(os.environ.get("CPYTHON_TEST_SECONDS", "60"))  # of one method
STICKS_BARE = "*.ThreadedVSOCKSocketStreamTest.*"  # connects to its own host, which not every virtual machine answers


def parent(module, only):
    with tempfile.TemporaryDirectory() as folder:
        log, done = f"{folder}/results", f"{folder}/done"
        results, code = {}, None
        while code is None:
            with open(done, "w") as f:
                f.writelines(f"{t}\n" for t in results)
            code = watch([sys.executable, __file__, "--child", log, done, module, *only], log, results)
    for test, result in results.items():
        print(f"@@ {test}\t{result}")
    return code


def watch(argv, log, results):
    """Runs a child to its end; its exit status, or None if a method was lost and there may be more to run."""
    open(log, "w").close()
    child = subprocess.Popen(argv)
    size, since = 0, time.monotonic()
    while child.poll() is None:
        time.sleep(0.02)
        if os.path.getsize(log) != size:
            size, since = os.path.getsize(log), time.monotonic()
        if time.monotonic() - since > SECONDS:
            child.send_signal(signal.SIGABRT)  # faulthandler tells where it was
            time.sleep(1)
            child.kill()
            child.wait()
    stuck = time.monotonic() - since > SECONDS
    running = None
    with open(log) as f:
        for event in map(json.loads, f):
            running = event["test"] if event["result"] is None else None
            if event["result"]:
                results[event["test"]] = event["result"]
    if running is None:
        return child.returncode
    results[running] = "stuck" if stuck else f"the process ended with {child.returncode}"
    return None


def child(log, done, module, only):
    from test.support import testresult
    from test.libregrtest import main

    def note(test, result):
        name = test.id() if hasattr(test, "id") else str(test)
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.write(fd, (json.dumps({"test": name, "result": result}) + "\n").encode())
        os.close(fd)

    class Result(testresult.RegressionTestResult):
        def startTest(self, test):
            self.word = None
            note(test, None)
            super().startTest(test)

        def stopTest(self, test):
            super().stopTest(test)
            note(test, self.word or "ok")

        def _say(self, test, word):
            self.word = self.word or word
            if type(test).__name__ == "_ErrorHolder":
                note(test, word)

        def addError(self, test, err):
            self._say(test, f"error {err[0].__name__}")
            super().addError(test, err)

        def addFailure(self, test, err):
            self._say(test, f"failure {err[0].__name__}")
            super().addFailure(test, err)

        def addSubTest(self, test, subtest, err):
            if err:
                self._say(test, f"{'failure' if issubclass(err[0], test.failureException) else 'error'} {err[0].__name__}")
            super().addSubTest(test, subtest, err)

        def addSkip(self, test, reason):
            self._say(test, "skip")
            if not hasattr(test, "_testMethodName"):
                note(test, self.word)
            super().addSkip(test, reason)

        def addExpectedFailure(self, test, err):
            self._say(test, "expected failure")
            super().addExpectedFailure(test, err)

        def addUnexpectedSuccess(self, test):
            self._say(test, "unexpected success")
            super().addUnexpectedSuccess(test)

    testresult.RegressionTestResult = Result
    sys.argv = ["regrtest", "-v", *(["-u", "network"] if module == "test_socketserver" else []), "--ignorefile", done, "-i", STICKS_BARE, *(a for m in only for a in ("-m", m)), module]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
    else:
        sys.exit(parent(sys.argv[1], sys.argv[2:]))
