"""The page of a suite, from records written by hand."""

from rlmix.experiments.suite_tables import as_markdown

SETTINGS = {"suite": "gpu", "device": "A card", "scale": 1.0}
MACHINE = {"model": "preactresnet18", "batch_size": 100, "torch": "2.14"}


def timed(**ratios):
    rows = {name: {"step_ms": 10 * ratio, "ratio": ratio} for name, ratio in ratios.items()}
    return {"result": {"machine": MACHINE, "methods": rows, "image_size": 32}}


def trained(arm, top1, seeds=(0,)):
    figure = {"mean": top1, "std": None, "low": None, "high": None}
    row = {"label": arm, "model": "preactresnet18", "baseline": arm, "top1": figure, "top1_median10": figure}
    config = {"data": "cifar100", "epochs": 300}
    return {"result": {"methods": {arm: row}, "seeds": list(seeds), "config": config, "metrics": [], "threads": 1}}


def table(text, heading):
    """The rows below a heading, as cells."""
    _, _, below = text.partition(heading)
    lines = below.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_a_methods_figures_stand_in_its_row():
    records = {
        "steps-cifar-float32": timed(vanilla=1.0, rmix=1.7),
        "steps-cifar-bfloat16": timed(vanilla=1.0, rmix=1.6),
        "compiled-cifar-float32": timed(vanilla=1.0, rmix=1.5),
        "waits-cifar": {
            "result": {
                "methods": {"vanilla": {"synchronisations": 0, "copies_to_host": 0}, "rmix": None},
                "failed": {"rlmix": "out of memory"},
            }
        },
        "memory-cifar-float32": {"result": {"methods": {"vanilla": 123.4, "rmix": 234.5}, "failed": {}}},
    }
    text = as_markdown(SETTINGS, records)
    assert text.startswith(
        "# rlmix benchmark --suite gpu: A card\n\n## A step of preactresnet18, 32 pixels, batch 100, torch 2.14\n"
    )
    assert table(text, "## A step of") == [
        [
            *("method", "float32, ms", "/ vanilla", "bfloat16, ms", "/ vanilla", "compiled, float32, ms", "/ vanilla"),
            *("synchronisations", "copies to the host", "peak MB, float32"),
        ],
        ["vanilla", "10.00", "1.00", "10.00", "1.00", "10.00", "1.00", "0.0", "0.0", "123"],
        ["rmix", "17.00", "1.70", "16.00", "1.60", "15.00", "1.50", "not measured", "not measured", "234"],
        ["rlmix", "", "", "", "", "", "", "failed", "failed", ""],
    ]
    assert text.endswith("## What failed\n\n- waits-cifar, rlmix: out of memory\n")
    assert "rehearsal" not in text


def test_the_comparison_of_most_seeds_is_shown_and_schedules_in_the_arms_order():
    records = {
        "compared-1": trained("rmix", 50.0),
        "compared-2": trained("rmix", 60.0, (0, 1)),
        "compared-3": {"failed": "1 of 12 runs failed"},
        "schedule-rlmix": trained("rlmix", 80.0),
        "schedule-vanilla": trained("vanilla", 70.0),
    }
    text = as_markdown(SETTINGS, records)
    assert table(text, "## Trained")[1][:2] == ["rmix", "60.00"]
    assert "seeds 0, 1\n" in text
    assert [row[:2] for row in table(text, "## A whole schedule")[1:]] == [["vanilla", "70.00"], ["rlmix", "80.00"]]
    assert "- compared-3: 1 of 12 runs failed" in text


def test_a_rehearsal_says_so_and_nothing_is_a_page_too():
    text = as_markdown(SETTINGS | {"scale": 0.01}, {})
    assert text.splitlines()[2] == "**A rehearsal at scale 0.01: no figure here means anything.**"
