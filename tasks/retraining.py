"""The champion that a new model is compared with, and whether a scheduled retraining has anything to learn."""

import datetime
from typing import NamedTuple

from flytekit import Deck
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.gestures import parse_gestures
from tasks.context import RunContext, digest
from tasks.decorators import cluster_task, config_digest
from tasks.registration import RegistrationResult
from tasks.start_run import describe_inputs, make_run_key


class Champion(NamedTuple):
    """The version in use, `models:/<name>/<version>`, and the shards of its images; "" and none without one."""

    uri: str
    shard: list[int]


class ChangeReport(NamedTuple):
    """Whether there is anything to learn, else which version was trained on the same, and its state and verdict."""

    changed: bool
    model_uri: str
    standing: str


@cluster_task()
def find_champion(gesture: str, shards: int, run: RunContext) -> Champion:
    """The version of `hand1000-<gestures>` with the alias `champion`, which only a reviewer sets."""
    from hand1000.registry import versions

    recorded = run.find_recorded()
    if recorded:
        version = recorded.find_champion()
    else:
        version = versions.find_champion(run.connect_mlflow(), parse_gestures(gesture))
    print(f"champion    {version.uri if version else 'none yet'}", flush=True)
    return Champion(uri=version.uri, shard=list(range(shards))) if version else Champion(uri="", shard=[])


@cluster_task()
def detect_changes(  # noqa: PLR0913 (Flyte signature)
    dataset: FlyteDirectory,
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    settings: Settings,
    kickoff: datetime.datetime,
    run: RunContext,
) -> ChangeReport:
    """Compare data, settings and base model with those of the champion and of every candidate that was judged.

    If the run of these inputs registered a model and was interrupted before it had recorded the results, there is
    something to do: the repeated run finds all artifacts and finishes the registration.
    """
    from hand1000.registry.review import list_candidates
    from hand1000.registry.tracking import find_run, has_ended
    from hand1000.registry.versions import DATASET, RECIPE, REMOVED, RUN_KEY, find_champion

    tracking, gestures = run.connect_mlflow(), parse_gestures(gesture)
    champion = find_champion(tracking, gestures)
    standings = [(champion, "the champion")] if champion else []
    for candidate in list_candidates(tracking, ",".join(gestures)):
        if candidate.verdict:
            undecided = candidate.verdict == "undecided"
            gates = "has undecided gates" if undecided else f"{candidate.verdict} its gates"
            standings.append((candidate.version, f"which is {candidate.state} and {gates}"))
    tags = {DATASET: digest(dataset), RECIPE: config_digest(settings, base_model)}
    started = f"{gesture}, {kickoff:%Y-%m-%d %H:%M}"
    run_key = make_run_key(describe_inputs(gesture, images, data, base_model, settings), dataset)
    own_run = find_run(tracking, run_key)
    for version, standing in standings:
        if tags.items() <= version.tags.items():
            is_own = version.tags.get(RUN_KEY) == run_key and REMOVED not in version.tags
            if is_own and own_run and not has_ended(own_run):
                print(f"{started}: the registration of {version.uri} is not finished", flush=True)
                return ChangeReport(changed=True, model_uri="", standing="")
            print(f"{started}: nothing changed since {version.uri}, {standing}", flush=True)
            return ChangeReport(changed=False, model_uri=version.uri, standing=standing)
    latest = standings[0][0] if standings else None
    names = {DATASET: "the data", RECIPE: "the settings or the base model"}
    reasons = [f"{names[tag]} changed" for tag, value in tags.items() if latest and latest.tags.get(tag) != value]
    since = f" since {latest.uri}" if latest else ""
    print(f"{started}: {' and '.join(reasons) or 'there is no model yet'}{since}", flush=True)
    return ChangeReport(changed=True, model_uri="", standing="")


@cluster_task(enable_deck=True)
def keep_current(model_uri: str, standing: str, dataset: FlyteDirectory, run: RunContext) -> RegistrationResult:
    """The end of a retraining that has nothing to learn: MLflow gets what earlier runs of the root could not record."""
    from hand1000.registry.load import find_version
    from hand1000.registry.tracking import close_ended_run, find_run
    from hand1000.registry.versions import RUN_KEY

    tracking = run.connect_mlflow()
    run.recording.send(tracking)
    recorded = find_run(tracking, find_version(model_uri, registry=tracking).tags.get(RUN_KEY, ""))
    if recorded:
        close_ended_run(tracking, recorded)
    outcome = f"unchanged: data, settings and base model are those of {model_uri}, {standing}"
    print(f"\nretraining  {outcome}\n", flush=True)
    Deck("retraining", outcome)
    return RegistrationResult(outcome=outcome, model_uri=model_uri, report=dataset)
