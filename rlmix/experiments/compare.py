"""The same classifier, data and schedule under several methods and seeds, and what they come to."""

from typing import Any

from rlmix.experiments.commands.compare import Compare
from rlmix.experiments.mixed_pictures import mixed_pictures
from rlmix.experiments.provenance import provenance
from rlmix.experiments.study import drawn_from, run_study
from rlmix.reporting import tables
from rlmix.reporting.bar import Bar
from rlmix.reporting.output import conclude
from rlmix.reporting.report import write_report
from rlmix.reporting.verdict import verdicts


def compare(options: Compare, *, quiet: bool = False) -> dict[str, Any]:
    """Run a comparison to its end, write its files, and give what compare.json holds.

    Raises:
        ValueError: If an option is out of range, a run in the folder was made with other options, or runs failed.
        OSError: If the data or the folder cannot be used.
    """
    options.check()
    study = options.study
    report = run_study(study, options.engine, quiet=quiet)
    said = verdicts(report)
    with Bar("reading the runs", 3, quiet=quiet) as bar:
        drawn = drawn_from(study)
        bar.advance(what="mixing the same images by each method")
        drawn = drawn._replace(strips=mixed_pictures(study), facts=provenance(report["threads"]))
        bar.advance(what="drawing the report")
        written = write_report(study.out, report, drawn, "Comparison", verdict=said)
    if not quiet:
        conclude(tables.as_table(report), [line.text for line in said], written)
    return report
