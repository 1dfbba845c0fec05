"""The tests in several processes that are forked from one, which has imported and collected all: that is done once."""

import atexit
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any
from warnings import WarningMessage

import pytest
from pristine import leave_to_the_first

SECONDS = 10
"""For workers to end by themselves, once the tests are stopped."""


class Workers:
    """Runs groups of tests, each in the next process that has none left.

    Args:
        session: all tests.
        count: how many processes.
        groups: the tests again, those together that one process runs one after the other.
    """

    def __init__(self, session: pytest.Session, count: int, groups: Sequence[Sequence[pytest.Item]]) -> None:
        self.session, self.config, self.groups = session, session.config, groups
        self.capture: Any = self.config.pluginmanager.getplugin("capturemanager")
        self.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self.capture.stop_global_capturing()  # its files would be those of all
        self.queue, queue = os.pipe()
        os.write(queue, b"".join(place.to_bytes(4) for place in range(len(groups))))
        os.close(queue)
        context = multiprocessing.get_context("fork")
        self.workers: dict[Connection, Any] = {}
        self.running: dict[Connection, str] = {}
        for number in range(count):
            reader, writer = context.Pipe(duplex=False)
            worker = context.Process(target=self._work, args=(number, [*self.workers, reader], writer))
            worker.start()
            writer.close()
            self.workers[reader] = worker
        os.close(self.queue)
        self._captured()

    def _captured(self) -> None:
        self.capture.start_global_capturing()
        self.capture.suspend_global_capture()

    def _work(self, number: int, readers: list[Any], writer: Connection) -> None:
        """What a worker does: tests until there are none, with a folder, a chance and a capture of its own."""
        leave_to_the_first()
        for reader in readers:
            reader.close()  # or else nothing tells a worker that nobody reads any more
        self.config.pluginmanager.unregister(name="terminalreporter")
        self.config.pluginmanager.register(Reporter(self.config, writer))
        factory = self.config._tmp_path_factory  # type: ignore[attr-defined]
        factory._basetemp = factory.getbasetemp() / f"worker-{number}"
        factory._basetemp.mkdir(mode=0o700)
        random.seed()
        self._captured()
        tests = self._taken()
        test = next(tests, None)
        try:
            while test is not None and not self._stopped():
                following = next(tests, None)  # known by then, for the fixtures that both use
                self.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
                test = following
            self.session._setupstate.teardown_exact(None)
            writer.send(None)
        except KeyboardInterrupt:
            self.session._setupstate.teardown_exact(None)
        finally:
            atexit._run_exitfuncs()  # which the processes of multiprocessing leave out

    def _taken(self) -> Iterator[pytest.Item]:
        while word := os.read(self.queue, 4):
            yield from self.groups[int.from_bytes(word)]

    def _stopped(self) -> bool | str:
        return self.session.shouldfail or self.session.shouldstop

    def report(self) -> None:
        """Says what the workers say, until they have ended."""
        try:
            while self.workers:
                for reader in wait(list(self.workers)):
                    self._hear(reader)
        finally:
            for worker in self.workers.values():
                worker.join(SECONDS)
                worker.kill()
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)
        if self.session.shouldstop:
            raise self.session.Interrupted(self.session.shouldstop)

    def _hear(self, reader: Any) -> None:
        try:
            said = reader.recv()
        except EOFError:
            self._lost(reader)
            return
        if said is None:
            self.workers.pop(reader).join()
            return
        name, arguments = said
        hook = getattr(self.config.hook, name)
        match name:
            case "pytest_runtest_logstart":
                self.running[reader] = arguments["nodeid"]
            case "pytest_runtest_logreport":
                found = self.config.hook.pytest_report_from_serializable(config=self.config, **arguments)
                arguments = {"report": found}
            case "pytest_warning_recorded":
                kind = type(arguments.pop("category"), (Warning,), {})
                arguments["warning_message"] = WarningMessage(category=kind, **arguments.pop("told"))
                hook.call_historic(kwargs=arguments)
                return
        hook(**arguments)

    def _lost(self, reader: Any) -> None:
        """A worker that ends in the midst of a test fails it; what else it had taken is not run."""
        worker = self.workers.pop(reader)
        worker.join()
        name = self.running.get(reader, "no test")
        words = f"its process ended with exit code {worker.exitcode}: what else that had taken was not run"
        report = pytest.TestReport(name, (name.partition("::")[0], None, name), {}, "failed", words, "call")
        self.config.hook.pytest_runtest_logreport(report=report)


class Reporter:
    """Sends what a worker has to report."""

    def __init__(self, config: pytest.Config, writer: Connection) -> None:
        self.config, self.writer = config, writer

    def _send(self, name: str, **arguments: Any) -> None:
        self.writer.send((name, arguments))

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._send("pytest_runtest_logstart", nodeid=nodeid, location=location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self._send("pytest_runtest_logreport", data=data)

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        self._send("pytest_runtest_logfinish", nodeid=nodeid, location=location)

    def pytest_warning_recorded(self, warning_message: WarningMessage, when: Any, nodeid: str, location: Any) -> None:
        told = {"message": str(warning_message.message), "filename": warning_message.filename}
        told |= {"lineno": warning_message.lineno, "line": warning_message.line}
        kind = warning_message.category.__name__
        self._send("pytest_warning_recorded", told=told, category=kind, when=when, nodeid=nodeid, location=location)
