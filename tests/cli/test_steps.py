"""Steps that all verbs take."""

import pytest
from omegaconf import OmegaConf

from elslightning.cli.steps import conclude
from elslightning.measurement.result import Result
from elslightning.system.errors import InputError


@pytest.fixture
def result(monkeypatch):
    monkeypatch.setattr(Result, "text", lambda self: "the table")
    return Result({}, {})


def test_the_table_is_printed_before_the_report_is_begun(result, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("elslightning.report.page.page.write_report", lambda *_, **__: print("the report"))
    conclude(result, OmegaConf.create({"report": True}), tmp_path)
    assert capsys.readouterr().out == "the table\nthe report\n"


def test_without_a_report_there_is_the_table(result, tmp_path, capsys):
    conclude(result, OmegaConf.create({"report": False}), tmp_path)
    assert capsys.readouterr().out == "the table\n"
    conclude(None, OmegaConf.create({"report": False}), tmp_path)
    assert capsys.readouterr().out == ""


def test_a_report_that_cannot_be_written_does_not_take_the_table_along(result, monkeypatch, tmp_path, capsys):
    def fail(*arguments, **options):
        raise InputError("it is not to be")

    monkeypatch.setattr("elslightning.report.page.page.write_report", fail)
    conclude(result, OmegaConf.create({}), tmp_path)
    captured = capsys.readouterr()
    assert captured.out == "the table\n"
    assert "there is no report: it is not to be" in captured.err
