"""What people read: paths and names letter by letter, on consoles and in pictures."""

import io
import re
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from toys import NETWORK, write_npz

from rlmix.reporting import plots
from rlmix.reporting.mixing_figures import label_weights
from rlmix.reporting.output import Enduring, literal, make_console
from rlmix.scripts.main import main as rlmix_main

ODD = ["exp[/b]", "exp[lr=0.1]", "[bold]x[/bold]", "a:smile:b", "back\\[slash]", "[link=x]"]
ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("rlmix", "envs", "agents", "scripts") for path in (ROOT / name).rglob("*.py")]


@pytest.mark.parametrize("name", ODD)
def test_a_run_in_a_folder_of_any_name(name, tmp_path, capsys):
    (tmp_path / name).mkdir(parents=True)
    data = write_npz(tmp_path / name, 8, num_train=16)
    options = ["--data", data, "--model", NETWORK, "--batch-size", "8", "--epochs", "1", "--device", "cpu"]
    rlmix_main(["train", *options, "--method", "vanilla", "--out", str(tmp_path / name / "run")])
    first, *_, folder, _, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"data     {data}: 16 training and ")
    assert folder == f"folder   {tmp_path / name / 'run'}"
    assert last.endswith(f": {tmp_path / name / 'run'}")
    rlmix_main(["evaluate", str(tmp_path / name / "run"), "--attacks"])
    assert (tmp_path / name / "run" / "evaluate.json").exists()


@pytest.mark.parametrize("name", ODD)
def test_tables_and_lines_show_names_as_they_are(name):
    from rich.table import Table

    out = io.StringIO()
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    make_console(file=out, width=80).print(table)
    make_console(file=out, width=80).print(name, soft_wrap=True)
    assert out.getvalue().count(name) == 5


def test_every_console_is_made_in_one_place():
    found = [path.name for path in SOURCES if re.search(r"(?<!make_)\bConsole\(|rich\.print", path.read_text())]
    assert found == ["output.py"]
    assert "markup=False" in (ROOT / "rlmix" / "reporting" / "progress.py").read_text()


@pytest.mark.parametrize("name", ["a$b$c", "$x_1$", "$", "c$^{", "100 % _a_"])
def test_dollars_in_names_are_no_formula(name):
    curves = {name: {0: [{"test_top1": 1.0, "epoch_seconds": 1.0, "top_k_counts": [1, 2]}] * 2}}
    for figure in (plots.curves_by_epoch(curves, "test_top1", "top-1"), plots.top_k_histograms(curves)):
        assert figure is not None
        FigureCanvasAgg(figure).draw()
    figure = plots.top_k_histograms(curves)
    text = figure.axes[0].title
    assert text._preprocess_math(text.get_text()) == (name, False)
    assert label_weights(torch.tensor([1.0, 0.0]), [name, "other"]) == f"{literal(name)} 1.00"


class Dead(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise OSError(5, "Input/output error")


def test_a_dead_stream_takes_everything():
    stream = Enduring(Dead())
    assert stream.write("lines") == 5
    stream.flush()
    make_console(file=stream).print("more")
    assert not stream.isatty()
