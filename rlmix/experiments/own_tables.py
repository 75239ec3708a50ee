"""Tables of our own, in the form of the paper's: the learned policy beside fixed ones, and what a step costs."""

from rlmix.experiments.table_form import PaperCell, PaperRun, PaperTable, Rows


def _policies() -> PaperTable:
    """Not the paper's."""
    runs = [PaperRun(name, name) for name in ("rlmix", "rmix", "rmix-p8")]
    runs += [PaperRun(f"constant {top_k:g}", "constant", {"top_k": top_k}) for top_k in (0.0, 0.44, 0.99)]
    columns = {"top-1 %": "top1", "reward": "reward_mean"}
    rows: Rows = {(run.label,): {heading: PaperCell(run, figure, {}) for heading, figure in columns.items()} for run in runs}
    return PaperTable(
        "The learned policy beside fixed ones", tuple(columns), rows, headings=("policy",), about=frozenset({"top_k", "num_patches"}),
        note="Not a table of the paper.",
    )  # fmt: skip


def _steps() -> PaperTable:
    """Not the paper's."""
    runs = [PaperRun(name, name) for name in ("vanilla", "cutmix", "saliencymix", "puzzlemix", "comixup", "rmix", "rlmix")]
    columns = {"step / vanilla": "step_ratio", "seconds an epoch": "seconds_per_epoch"}
    rows: Rows = {(run.label,): {heading: PaperCell(run, figure, {}) for heading, figure in columns.items()} for run in runs}
    return PaperTable(
        "What a training step costs", tuple(columns), rows, headings=("method",), epochs=1,
        note="Not a table of the paper. One epoch each: a step costs the same in all of them.",
    )  # fmt: skip


OWN_TABLES = {"policies": _policies(), "steps": _steps()}
