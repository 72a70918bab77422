"""The `predict` verb on two folders of images."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from terradelta.cautions import refuse_cautions
from terradelta.data.layouts import match_folders
from terradelta.geo.dates import find_folder_dates, read_flag
from terradelta.geo.finding import list_cautions
from terradelta.inference.confidence import doubt_confidence
from terradelta.inference.folders import examine_folders, map_folder, require_values
from terradelta.inference.pace import Pace
from terradelta.inference.predictor import Predictor
from terradelta.inference.rasters import PairRequest
from terradelta.outputs import null_undefined
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.records import DatesRecord, FolderParameters, FolderRun, Summary
from terradelta.stopwatch import Stopwatch


def map_folder_pair(
    predictor: Predictor, asked: PairRequest, staged: Path, watch: Stopwatch
) -> Summary:
    """Write the maps of two folders of images, summary.json and run.json; return the summary.

    Args:
        predictor: The models.
        asked: The request.
        staged: Where to write.
        watch: Stopwatch of the run, from whose start the time budget counts.

    Raises:
        CautionError: If the maps would carry a caution and `strict` is on.
        DataError: If the folders do not fit each other, or an image cannot be read.
    """
    before, after = asked.paths
    rasters, maps = asked.rasters, asked.maps
    assert isinstance(before, str | Path)
    assert isinstance(after, str | Path)
    pairs = match_folders(Path(before), Path(after))
    given = (
        read_flag("--before-date", rasters.before_date),
        read_flag("--after-date", rasters.after_date),
    )
    dates = find_folder_dates((before, after), given)
    findings = list(examine_folders(pairs, predictor.needs, dates))
    known = list_cautions(findings)
    if maps.strict:
        refuse_cautions(known, "or leave --strict out")
    watch.begin("predicting")
    deadline = None if maps.time_budget is None else watch.started + maps.time_budget
    require_values(predictor, pairs)
    pace = Pace(predictor.num_views, deadline)
    counted, views = map_folder(predictor, pairs, staged, maps.layout, pace)
    cautions = (*known, *doubt_confidence(counted))
    if maps.strict:
        refuse_cautions(cautions, "or leave --strict out")
    summary = replace(counted, cautions=cautions, dates=DatesRecord.of(dates))
    parts = watch.read()
    run = FolderRun(
        cautions=cautions,
        findings=tuple(
            replace(finding, values=null_undefined(finding.values)) for finding in findings
        ),
        dates=DatesRecord.of(dates),
        before=str(before),
        after=str(after),
        models=asked.models,
        parameters=_describe_parameters(predictor, asked),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
        },
        views_of_pairs=views,
        seconds={
            "total": round(sum(parts.values()), 3),
            **{name: round(part, 3) for name, part in parts.items()},
        },
    )
    files = PredictionFolder(staged)
    files.write(summary)
    files.write(run)
    return summary


def _describe_parameters(predictor: Predictor, asked: PairRequest) -> FolderParameters:
    reading = asked.rasters.reading
    before_range, after_range = reading.before.value_range, reading.after.value_range
    return FolderParameters(
        tta=predictor.tta,
        value_range=before_range,
        after_value_range=after_range if after_range != before_range else None,
        time_budget_seconds=asked.maps.time_budget,
        device=predictor.device.type,
        backend=predictor.choice.backend,
        precision=predictor.choice.precision,
        change_threshold=predictor.rule.threshold,
        decided_by=predictor.rule.decided_by,
        sensitivity=predictor.sensitivity,
    )
