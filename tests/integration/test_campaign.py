"""The power-cut campaign: its states are what a power cut leaves, its verdicts repeat, its oracles bite."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench import images
from bench.boards.flashmap import FLASH_BYTES
from bench.campaign import lines, plan, run, updates, world
from bench.campaign.lines import Fault, Line
from bench.campaign.machine import RESET, Life, Machine
from bench.campaign.memory import Memory
from bench.campaign.player import Outcome, Player
from bench.campaign.run import Tally
from bench.campaign.trace import FlashState, Step, Tear, Trace, torn
from bench.campaign.world import World
from bench.cli.campaign import SECONDS_PER_STATE
from bench.cli.main import main
from bench.errors import BenchError
from bench.mutants import ota, planted

POWER_CUT = 120
POWER_ON, HARD = 1, 2
KEYS = [
    "schema", "states", "cuts", "torn", "second_cuts", "link_cuts", "server_kills", "content_faults",
    "bit_rot", "failures", "states_per_s", "board", "seed",
]  # fmt: skip


@pytest.fixture(scope="module")
def place() -> World:
    return world.build(images.build("process").path)


@pytest.fixture(scope="module")
def tasks(place: World) -> list[plan.Task]:
    return plan.tasks(place, 1, 1)


@pytest.fixture
def player(place: World) -> Iterator[Player]:
    with Player(place) as made:
        yield made


def tally(place: World, tasks: list[plan.Task], workers: int) -> Tally:
    return run.campaign(place, 1, tasks, workers)


# ---------------------------------------------------------------- the model


def test_a_torn_program_keeps_its_prefix_and_never_sets_a_bit() -> None:
    before = bytes([0xF0] * 8)
    step = Step(0, bytes([0x10] * 8))
    assert torn(step, before, Tear(3)).data == bytes([0x10] * 3 + [0xF0] * 5)
    for seed in range(1, 50):
        partly = torn(step, before, Tear(0, seed)).data
        assert all(byte & 0x10 == 0x10 and byte & ~0xF0 == 0 for byte in partly)


def test_a_hash_names_the_contents_however_they_came_about() -> None:
    blank = FlashState(b"\xff" * 0x200000)
    one = FlashState.copy_of(blank)
    one.apply([Step(512, b"abcd"), Step(4096, b"wxyz")])
    other = FlashState(bytes(one.data))
    assert one.hash == other.hash != blank.hash
    assert blank.hash_with(Step(512, b"abcd")) != one.hash
    one.apply([Step(4096, b"\xff" * 256)])
    assert one.hash == blank.hash_with(Step(512, b"abcd"))


def test_a_barrier_ends_a_sync_group() -> None:
    steps = tuple(Step(n * 256, b"data") for n in range(5))
    assert Trace(steps, (2, 3)).groups() == [range(0, 2), range(3, 5)]


@pytest.mark.parametrize("tear", [Tear(-1), Tear(0), Tear(7), Tear(0, 99), Tear(13, 4711)])
def test_a_state_made_from_the_trace_is_what_a_power_cut_leaves(place: World, tear: Tear) -> None:
    golden = place.goldens["new"]
    first = golden.lives[0].first("started")
    assert first is not None
    for ahead in (1, 40, 111):
        number = int(first["at"]) + ahead - 1
        with Machine(place.binary, place.served) as machine:
            machine.load(place.base)
            script = place.script("new", orders=[4, 13], answers=[8], arm=[ahead, tear.keep, tear.seed])
            assert machine.live(script).exit_code == POWER_CUT
            left = machine.image()
        made = FlashState(place.base)
        made.apply(golden.trace.steps[:number])
        if tear.keep >= 0:
            made.apply([made.torn(golden.trace.steps[number], tear)])
        assert made.data == left


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    "text",
    [
        "new cut=137",
        "new cut=137:keep=9:seed=4 cut=12",
        "bad lose=5:seed=3",
        "new cut=137 rot=1048576",
        "new link=7:after",
        "new content=wrong-chip",
    ],
)
def test_a_line_reads_back_as_it_was_written(text: str) -> None:
    assert str(lines.parse(text)) == text


@pytest.mark.parametrize("text", ["", "new cut", "new cut=x", "new cut=1:depth=3", "new bite=4"])
def test_a_line_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BenchError, match="no line of the campaign"):
        lines.parse(text)


# ---------------------------------------------------------------- the machine


def test_reset_memory_outlives_a_reset_and_not_the_power(place: World) -> None:
    with Machine(place.binary, place.served) as machine:
        machine.load(place.base)
        assert machine.live(place.script("new")).exit_code == RESET
        assert started(machine.live(place.script(None)))["cause"] == HARD
        assert started(machine.live(place.script(None)))["cause"] == HARD
        machine.unplug()
        assert started(machine.live(place.script(None)))["cause"] == POWER_ON


def test_a_state_loaded_over_another_is_the_same_flash(place: World) -> None:
    steps = place.goldens["new"].trace.steps
    base = FlashState(place.base)
    one, other = FlashState.copy_of(base), FlashState.copy_of(base)
    one.apply(steps[:200])
    other.apply(steps[:90])
    with Machine(place.binary, place.served) as machine:
        for state in (one, other, base):
            machine.load_state(state)
            assert machine.image() == state.data
            machine.live(place.script("new"))
        machine.load_state(other)
        assert machine.image() == other.data


def test_a_board_that_ends_by_itself_is_said_so(tmp_path: Path) -> None:
    with Machine(Path("/bin/true"), b"", tmp_path) as machine:
        machine.load(b"\xff" * FLASH_BYTES)
        with pytest.raises(BenchError, match="ended by itself"):
            machine.live({})


def started(life: Life) -> Mapping[str, Any]:
    found = life.first("started")
    assert found is not None
    return found


# ---------------------------------------------------------------- playing


def test_a_sample_of_every_kind_of_fault_is_survived(place: World, tasks: list[plan.Task]) -> None:
    kinds: dict[str, plan.Task] = {}
    for task in tasks:
        kinds.setdefault(f"{task.line.golden} {task.line.faults[-1].kind} {task.line.is_torn}", task)
    played = tally(place, list(kinds.values()), 2)
    assert [(str(one.line), one.failures) for one in played.failed] == []
    result = played.to_json() | played.details()
    for name in ("cuts", "torn", "second_cuts", "link_cuts", "content_faults", "bit_rot", "plug_pulls"):
        assert result[name] > 0, name


def test_every_update_ends_as_it_has_to(place: World) -> None:
    tasks = [plan.Task(Line(name, (Fault(lines.CUT, 0),)), 0) for name in place.goldens]
    assert len(tasks) >= 8
    assert tally(place, tasks, 2).failed == []


def test_an_update_that_is_not_cut_everywhere_is_sampled_early(place: World, tasks: list[plan.Task]) -> None:
    sampled = Counter(task.line.golden for task in tasks[:500])
    for name in place.goldens.keys() - set(updates.WHOLE):
        assert sampled[name] > 10, name


def test_a_long_download_has_a_second_run_of_hashes_and_goes_on_where_it_was_cut(
    place: World, player: Player
) -> None:
    release, golden = place.releases["long"], place.goldens["long"]
    assert release.chunks > 32
    whole = player.play(lines.parse("long cut=0"))
    cut = player.play(lines.parse(f"long cut={len(golden.trace.steps) // 2}"))
    assert [outcome.failures for outcome in (whole, cut)] == [(), ()]
    assert asked(whole) == release.chunks
    assert 0 < asked(cut) < release.chunks * 3 // 4


def asked(outcome: Outcome) -> int:
    return sum(event["count"] for _, event in outcome.told if "chunk" in event)


def test_rot_in_a_release_ends_in_what_ran_before_and_then_in_the_new_one(place: World) -> None:
    rotten = list(plan.rotten_slots(place, Random(1)))
    assert len(rotten) > 30
    assert tally(place, [plan.Task(line, 0) for line in rotten], 2).failed == []


def test_a_release_made_over_another_image_never_runs(place: World) -> None:
    for name in ("flashed", "flashed-alike"):
        golden = place.goldens[name]
        ran = [life.first("started") for life in golden.lives]
        before = place.releases["five"].version
        assert [one["started"] for one in ran if one] == [before, place.releases["new"].version]


def test_every_offer_that_must_be_refused_is(place: World) -> None:
    tasks = [plan.Task(Line("new", (Fault(lines.CONTENT, name=name),)), 0) for name in sorted(place.hostile)]
    assert len(tasks) >= 7
    assert tally(place, tasks, 2).failed == []


def test_the_number_of_workers_changes_nothing(place: World, tasks: list[plan.Task]) -> None:
    few = [task for task in tasks if task.seconds == 1][:4]
    alone, together = (tally(place, few, workers) for workers in (1, 2))
    for one in (alone, together):
        one.seconds = one.cpu_s = 0.0
        del one.counts["boots"]  # each worker remembers what it has seen
    assert alone.to_json() | alone.details() == together.to_json() | together.details()
    assert alone.hashes == together.hashes


def test_the_same_seed_plans_the_same_campaign(place: World, tasks: list[plan.Task]) -> None:
    again = plan.tasks(place, 1, 1)
    assert again == tasks
    assert plan.tasks(place, 6, 1) != tasks


def test_a_whole_campaign_is_fifteen_thousand_states_and_cuts_some_recoveries_at_every_step(
    place: World,
) -> None:
    whole = plan.tasks(place, 1, SECONDS_PER_STATE)
    assert sum(task.seconds == -1 for task in whole) == 8
    steps = len(place.goldens["new"].trace.steps)
    assert len(whole) + sum(max(0, task.seconds) for task in whole) + 8 * steps // 2 > 15_000


def test_a_line_behind_the_end_of_the_update_is_refused(player: Player) -> None:
    with pytest.raises(BenchError, match="lies behind"):
        player.play(lines.parse("new cut=99999"))


def test_how_the_last_start_ended_is_remembered_too(place: World) -> None:
    with place.machine() as machine:
        base = FlashState(place.base)
        memory = Memory(machine, base)
        memory.load_state(base)
        first = memory.live(place.script("new"))
        assert started(memory.live(place.script(None)))["cause"] == HARD
        base.apply(first.trace.steps)
        memory.load_state(base)
        assert started(memory.live(place.script(None)))["cause"] == POWER_ON


def test_what_is_remembered_is_what_the_terminal_does(place: World, player: Player) -> None:
    texts = ("new cut=30", "new cut=120:keep=9:seed=4", "new cut=120 cut=3", "new crash=1", "new cancel=3")
    played = [lines.parse(text) for text in texts]
    for line in played:
        player.play(line)
    before = player.boots
    by_heart = [player.play(line) for line in played]
    assert player.boots == before
    for line, known in zip(played, by_heart, strict=True):
        with Player(place) as fresh:
            again = fresh.play(line)
        assert (again.hash, again.lives, again.failures) == (known.hash, known.lives, known.failures)
        assert again.trace == known.trace
        assert again.told == known.told


# ---------------------------------------------------------------- planted bugs


def test_every_planted_bug_changes_code_that_is_there() -> None:
    assert len({mutant.name for mutant in ota.MUTANTS}) == len(ota.MUTANTS) >= 50
    for mutant in ota.MUTANTS:
        compile(mutant.source(), mutant.file, "exec")


@pytest.mark.parametrize(
    "name",
    ["hardware and site not checked", "resume begins anew", "older quarantines forgotten", "a fourth try"],
)
def test_a_planted_bug_is_caught(place: World, name: str) -> None:
    bug = next(mutant for mutant in ota.MUTANTS if mutant.name == name)
    assert ota.find(bug, place, ota.image(), 1, time.monotonic() + 60)["caught"]


class NoBug(planted.Mutant):
    @property
    def frozen(self) -> str:
        return f"terminal/{self.file}"


def test_a_change_that_is_none_is_not_caught(place: World) -> None:
    none = NoBug("none", "ota/states.py", "control", ())
    found = ota.find(none, place, ota.image(), 1, time.monotonic() + 2)
    assert (found["caught"], found["by"]) == (False, "")


def test_the_image_with_every_bug_is_honest_until_one_is_chosen(place: World) -> None:
    honest = world.on(place, ota.image())
    assert [life.trace for life in honest.goldens["new"].lives] == [
        life.trace for life in place.goldens["new"].lives
    ]


# ---------------------------------------------------------------- the command


def test_a_replay_shows_the_console_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "campaign", "--replay", "new cut=100"]) == 0
    shown = capsys.readouterr().out
    assert '"ended": ' in shown
    assert "new cut=100: 2 starts, 0 failures" in shown


def test_an_exported_state_is_a_flash_image(tmp_path: Path, place: World) -> None:
    file = tmp_path / "state.img"
    assert main(["bench", "campaign", "--export", "new cut=100:keep=5", str(file)]) == 0
    wanted = FlashState(place.base)
    steps = place.goldens["new"].trace.steps
    wanted.apply([*steps[:100]])
    wanted.apply([wanted.torn(steps[100], Tear(5))])
    assert file.read_bytes() == wanted.data


def test_bad_lines_end_in_a_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "campaign", "--replay", "nonsense=1 x"]) == 2
    assert "no line of the campaign" in capsys.readouterr().err


def test_a_budget_ends_a_campaign_and_the_json_has_just_these_keys(tmp_path: Path) -> None:
    result, details = tmp_path / "campaign.json", tmp_path / "details.json"
    files = ["--json", str(result), "--details", str(details)]
    assert main(["bench", "campaign", "--only", "flash", "--budget", "2s", "--seed", "1", *files]) == 0
    found = json.loads(result.read_text())
    assert list(found) == KEYS
    assert (found["schema"], found["board"], found["seed"]) == ("tableside.campaign/1", "process", 1)
    assert found["states"] > 0
    assert found["failures"] == 0
    assert json.loads(details.read_text())["complete"] is False
