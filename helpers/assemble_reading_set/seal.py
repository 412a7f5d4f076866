"""The sealed key of a reading set: encrypted, committed to before the read, opened once every
reader has locked.

The commitment is SHA-256 over a secret 32-byte salt followed by the key table's bytes (Blum's bit
commitment with a hash): it reveals nothing about the key, and no other key fits it. Encryption is
AES-256-GCM (NIST SP 800-38D) by the cryptography package, bound to the commitment.
"""

import hashlib
import hmac
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from helpers import protocol_tables, tables
from helpers.assemble_reading_set import envelope
from helpers.assemble_reading_set.envelope import SealError
from helpers.files import sha256, utc_now, write_atomically
from helpers.runner import executed_code, folders, freshness, parameters, runs

OPENINGS = ".unsealed.jsonl"
PROTOCOL = ("questions.csv", "blocks.csv", "to_tell.csv")
PLANNED = ("08_analyse_readings", "09_compare_with_paper")
MODELS = "07_ask_models"  # its settings and the model's instructions are part of the plan
SINCE = "the reading set was sealed"


def seal(
    key: pd.DataFrame,
    reading_set: Path,
    sealed: Path,
    study: str,
    readers: int,
    git: dict | None = None,
) -> dict:
    """Encrypt the key into `sealed`/key.enc and write `reading_set`/commitment.json; returns the
    commitment.

    With SEAL_PASSPHRASE in the environment the passphrase locks the key, else .keys/<study>/seal. A
    set that is already sealed stays as it is. `readers` is the planned number of readers, all of
    whom must lock.
    """
    if (Path(reading_set) / "commitment.json").exists() and (Path(sealed) / "key.enc").exists():
        return read_commitment(reading_set)
    content = tables.check(key, "key").to_csv(index=False).encode()
    salt = envelope.derive(study, "salt", content)
    commitment = {
        "scheme": "sha256(salt + key.csv)",
        "commitment": hashlib.sha256(salt + content).hexdigest(),
        "reading_set": fingerprint(reading_set),
        "presentations": len(key),
        "readers": int(readers),
        "plan": freeze_plan(study, sealed),
        "defaults": {
            f"{name}.ipynb": _defaults(folders.NOTEBOOKS / f"{name}.ipynb")
            for name in (MODELS, *PLANNED)
        },
        "blocks": _blocks(Path(reading_set)),
        "code": executed_code.of(_plan_notebooks()),
        "packages": executed_code.packages(),
        "git": git or {},
        "committed_utc": utc_now(),
    }
    encrypted = envelope.encrypt(
        json.dumps({"salt": salt.hex(), "key": content.decode()}).encode(), commitment, study
    )
    write_atomically(Path(sealed) / "key.enc", encrypted, mode=0o600)
    write_atomically(
        Path(reading_set) / "commitment.json",
        (json.dumps(commitment, indent=1, sort_keys=True) + "\n").encode(),
    )
    return commitment


def unseal(
    reading_set_folder: Path,
    sealed_folder: Path,
    study: str,
    locks: Mapping[str, str] | pd.DataFrame,
    emergency: str = "",
    simulated: bool = False,
) -> pd.DataFrame:
    """The key, if every reader has locked and it is the key that was committed to.

    `locks` maps every reader's id to the time of the lock (empty while open), or is the table
    readers.csv. `emergency` is the reason, which is recorded, for opening earlier. `simulated` says
    that simulated readers open the key to answer from the truth. Every opening is recorded with
    time, method and reason in `sealed_folder`/.unsealed.jsonl and in the result's
    `.attrs["unsealed"]`. Raises SealError for a reader who has not locked, a missing seal, a wrong
    passphrase, and a key, plan, image or reading set that is not the committed one.
    """
    commitment = read_commitment(reading_set_folder)
    if missing := {"commitment", "reading_set", "readers", "plan", "code", "packages"} - set(
        commitment
    ):
        raise SealError(
            f"{reading_set_folder}/commitment.json is damaged (it has no"
            f" {', '.join(sorted(missing))}): copy it again from the run folder of 06."
        )
    open_readers = _still_open(locks, commitment.get("readers", 1))
    if open_readers and not (simulated or emergency.strip()):
        raise SealError(
            f"The key stays sealed: {open_readers}. Let every reader lock, or give a reason as"
            " `emergency`, which is recorded and reported."
        )
    if fingerprint(reading_set_folder) != commitment["reading_set"]:
        raise SealError(
            f"{reading_set_folder}: an image or reading_set.csv is not the one committed to before"
            " the read. Restore the folder as 06 wrote it."
        )
    for name, digest in commitment["plan"].items():
        path, defaults = Path(sealed_folder) / "plan" / name, commitment.get("defaults", {})
        if (
            not path.is_file()
            or _plan_digest(path) != digest
            or (name in defaults and _defaults(path) != defaults[name])
        ):
            raise SealError(
                f"{path} is not the plan that was frozen before the read: restore the sealed folder"
                " as 06 wrote it."
            )
    key = _opened(Path(sealed_folder), Path(reading_set_folder), commitment, study)
    entry = {"how": "all readers locked"}
    if open_readers:
        how = "simulated readers" if simulated else "emergency"
        entry = {"how": how, "reason": emergency.strip(), "state": open_readers}
    key.attrs["unsealed"] = _record(Path(sealed_folder), entry)
    return key


def _opened(sealed: Path, reading_set: Path, commitment: dict, study: str) -> pd.DataFrame:
    """The key in key.enc. Raises SealError if it is not the one that was committed to."""
    secret = json.loads(envelope.decrypt(sealed / "key.enc", commitment, study))
    content = secret["key"].encode()
    if not hmac.compare_digest(
        hashlib.sha256(bytes.fromhex(secret["salt"]) + content).hexdigest(),
        commitment["commitment"],
    ):
        raise SealError(
            f"{sealed}/key.enc does not hold the key that was committed to before the read: restore"
            " the sealed folder as 06 wrote it."
        )
    key = tables.check(
        pd.read_csv(io.BytesIO(content), dtype="string", keep_default_na=False, na_values=[""]),
        "key",
    )
    shown = set(tables.read(reading_set / "reading_set.csv")["blind_id"])
    if set(key["blind_id"]) != shown:
        raise SealError(
            f"{sealed}/key.enc names other images than reading_set.csv, so it is the key of"
            " another set: restore the sealed folder as 06 wrote it."
        )
    return key


def fingerprint(reading_set: Path) -> str:
    """One SHA-256 over reading_set.csv, the protocol's tables and every image. It shows
    damage to a copy, but not which images are repeats.
    """
    rows = tables.read(reading_set / "reading_set.csv").sort_values("blind_id")
    if rows["pair"].isna().all():
        rows = rows.drop(columns="pair")  # older sets were sealed without pairs.csv
    whole = hashlib.sha256(rows.to_csv(index=False).encode())
    designed = [name for name in PROTOCOL if (reading_set / name).exists()]
    for path in [*designed, *rows["path"]]:
        try:
            whole.update((reading_set / path).read_bytes())
        except FileNotFoundError:
            raise SealError(
                f"{reading_set / path} is missing: copy the whole reading set again."
            ) from None
    return whole.hexdigest()


def read_commitment(reading_set: Path) -> dict:
    """commitment.json of a reading set. Raises SealError when it is missing or damaged."""
    path = Path(reading_set) / "commitment.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise SealError(
            f"{path} is missing, so the reading set is not finished: run 06 again."
        ) from None
    except ValueError:
        raise SealError(f"{path} is damaged: copy it again from the run folder of 06.") from None


def freeze_plan(study: str, sealed: Path) -> dict[str, str]:
    """SHA-256, by file name, of the code of notebooks 08 and 09, of this study's settings for them,
    and of the settings and instructions for models. Copies are kept in `sealed`/plan/.
    """
    for path in _plan_files(study):
        write_atomically(Path(sealed) / "plan" / path.name, path.read_bytes())
    return {path.name: _plan_digest(path) for path in _plan_files(study)}


def _blocks(reading_set: Path) -> list[str]:
    """The blocks of the set in their order, each with its questions, as the plan names
    them.
    """
    if not (reading_set / "blocks.csv").exists():
        return []
    designed = protocol_tables.load(reading_set)
    titles = designed.titles()
    parts = {
        titles[block.block]: ", ".join(one.id for one in designed.questions_of(block.block))
        for block in designed.blocks
    }
    return [f"“{title}” ({ids or 'no question'})" for title, ids in parts.items()]


def frozen(reading_set: Path) -> str:
    """A sentence that says what was frozen before the read."""
    then = read_commitment(reading_set)
    versions = ", ".join(f"{name} {version}" for name, version in then["packages"].items())
    return (
        f"Frozen with the reading set: {', '.join(sorted(then['plan']))} (settings are compared"
        " by their values, notebooks by their code, texts by their bytes); the code of"
        f" {len(then['code'])} modules that 08 and 09 execute (syntax trees without comments and"
        f" docstrings); {versions}. The parts, in order, with their questions:"
        f" {'; '.join(then.get('blocks', [])) or 'one, the published question'}. The record of the"
        " key's openings is an ordinary file: if somebody deleted it, nothing would show that."
    )


def plan_changes(reading_set: Path, study: str) -> list[str]:
    """How the analysis differs from the one frozen before the read - settings, notebooks, modules
    and packages - one phrase each; empty when it is the same.
    """
    then, plan = read_commitment(reading_set), Path(reading_set).parent / "sealed" / "plan"
    now = {
        "plan": {
            path.name: then["plan"][path.name]
            if _same_values(path, plan / path.name)
            else _plan_digest(path)
            for path in _plan_files(study)
        },
        "code": executed_code.of(_plan_notebooks()),
        "packages": executed_code.packages(),
    }
    changes = [
        phrase
        for part, found in now.items()
        for phrase in executed_code.changes(then[part], found, SINCE)
    ]
    for path in _plan_notebooks()[1:]:  # settings_changed compares what 08 uses
        before, found = then.get("defaults", {}).get(path.name, {}), _defaults(path)
        changes += [
            f"{key} of {path.stem} was {value!r} and is {found[key]!r}"
            for key, value in before.items()
            if value != found.get(key, value)
        ]
    return changes


def planned(sealed: Path, run: runs.Run) -> dict:
    """The parameters of a run of 07 to 09 in the frozen plan: the notebook's defaults and the
    settings of the run. A run that was added later is held to one that was planned for the same
    reading set.
    """
    plan, stem = Path(sealed) / "plan", run.notebook.stem
    commitment = read_commitment(Path(sealed).parent / "reading_set")
    defaults = commitment.get("defaults", {}).get(run.notebook.name)
    if defaults is None:  # a set of an earlier version
        path = plan / run.notebook.name
        defaults = _defaults(path) if path.is_file() else {}
    # A file that was put into the folder later is not part of the plan.
    frozen = sorted(commitment["plan"])
    for name in (f"{run.name}.yaml", f"{stem}.yaml", *frozen):
        if name in frozen and name.startswith(stem) and name.endswith(".yaml"):
            found = defaults | parameters.read_yaml(plan / name)
            same_set = found.get("reading_set") == run.parameters.get("reading_set")
            if name == f"{run.name}.yaml" or same_set:
                return found
    return defaults


def settings_changed(sealed: Path, run: runs.Run) -> list[str]:
    """Parameters of a run of 07 to 09 that differ from the frozen plan, whatever set them. One
    phrase each.

    `emergency` is not part of the plan: opening the key early is recorded and reported separately.
    """
    used = run.parameters
    return [
        f"{key} of {run.name} was {value!r} and is {used[key]!r}"
        for key, value in planned(sealed, run).items()
        if key in used and key != "emergency" and value != used[key]
    ]


def _plan_digest(path: Path) -> str:
    # A notebook's outputs and its parameter `study` are not part of the plan; its code and the
    # settings in force are.
    return freshness.code_digest(path) if path.suffix == ".ipynb" else sha256(path)


def _same_values(path: Path, frozen: Path) -> bool:
    """Whether two YAML files have the same values; comments and the order of keys do not count."""
    if path.suffix != ".yaml" or not frozen.is_file():
        return False
    return parameters.read_yaml(path) == parameters.read_yaml(frozen)


def _defaults(notebook: Path) -> dict:
    """The parameters of a notebook, but for those that only say which run is looked at."""
    declared = parameters.schema(notebook).items()
    return {key: one.default for key, one in declared if key not in ("study", "variant")}


def _plan_notebooks() -> list[Path]:
    paths = [folders.NOTEBOOKS / f"{name}.ipynb" for name in PLANNED]
    return [path for path in paths if path.is_file()]


def _plan_files(study: str) -> list[Path]:
    folder = folders.params_folder(study)
    settings = [path for name in PLANNED for path in sorted(folder.glob(f"{name}*.yaml"))]
    asking = sorted(folder.glob(f"{MODELS}*.yaml"))
    declared = parameters.schema(folders.NOTEBOOKS / f"{MODELS}.ipynb")["instructions"]
    instructions = {
        parameters.read_yaml(path).get("instructions", declared.default) for path in asking
    }
    texts = [folder / name for name in sorted(instructions) if (folder / name).is_file()]
    return [*settings, *asking, *texts, *_plan_notebooks()]


def _still_open(locks, planned: int) -> str:
    if isinstance(locks, pd.DataFrame):
        locks = dict(zip(locks["reader_id"], locks["locked_utc"].fillna("")))
    waiting = sorted(
        str(reader) for reader, locked in locks.items() if not locked or pd.isna(locked)
    )
    if waiting:
        return f"{len(waiting)} of {len(locks)} readers have not locked ({', '.join(waiting)})"
    return (
        f"{len(locks)} of {planned} planned readers have locked"
        if len(locks) < max(planned, 1)
        else ""
    )


def openings(sealed: Path) -> list[dict]:
    """The openings of the key so far: utc, how, and perhaps reason and state. Raises SealError for
    a damaged record.
    """
    path = Path(sealed) / OPENINGS
    try:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        [(entry["utc"], entry["how"]) for entry in found]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError):
        raise SealError(f"{path}, the record of openings, is damaged: restore it.") from None
    return found


def _record(sealed: Path, entry: dict) -> dict:
    """Record the entry with its time and return it; the same entry is not recorded twice."""
    before = openings(sealed)
    for earlier in before:
        if {name: earlier[name] for name in earlier if name != "utc"} == entry:
            return {**earlier, "history": before}
    entry = entry | {"utc": utc_now()}
    history = [*before, entry]
    lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in history)
    write_atomically(sealed / OPENINGS, lines.encode(), mode=0o600)
    return {**entry, "history": history}
