from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import catalogue
import catalogue_rows
import networks
import pytest
import samples
from catalogue_page import between
from catalogue_rows import Row, Rows, Timing
from everywhere import chosen, everywhere, names, subject


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, ...]:
    """A network, its images, and where what is measured goes, as arguments."""
    path = networks.saved(networks.chain(1), tmp_path, "mine")
    data = samples.archive(tmp_path)
    return ("--models", str(path), "--data", str(data), "--folder", str(tmp_path / "out"), "--rounds", "2")


def rows(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "out" / "rows.json").read_text())


def row(**more: object) -> Row:
    values = {
        "network": "mine",
        "network_sha256": "5eed",
        "choice": "int8w",
        "state": "now",
        "layers": 3,
        "weight_bytes": 25,
        "exact_weight_bytes": 100,
        "top1": 90.0,
        "exact_top1": 91.0,
        "top1_change": -1.0,
        "top1_change_std": 0.1,
        "loss": 0.02,
        "loss_std": 0.001,
        "images": 10,
        "seconds": 1.0,
    }
    return Row(**values | more)  # type: ignore[arg-type]


def test_a_choice_is_built_judged_timed_and_put_into_tables(small: tuple[str, ...], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = [f"<!-- {mark} -->\n<!-- end of {mark} -->\n" for mark in ("choices", "measured")]
    page.write_text(f"# Ours\n{''.join(marks)}The end.\n")
    assert catalogue.main([*small, "--choices", "int8w,onnxruntime int8", "--page", str(page)]) == 0
    exact, stored, reference, narrower = rows(tmp_path)
    assert (exact["choice"], exact["top1_change"], exact["weight_bytes"]) == ("exact", 0, exact["exact_weight_bytes"])
    assert exact["timing"]["ratio"] > 0
    assert stored["layers"] == 5
    assert stored["weight_bytes"] / stored["exact_weight_bytes"] == pytest.approx(0.27, abs=0.02)
    assert (reference["choice"], reference["reference"], reference["layers"]) == ("onnxruntime int8", True, 0)
    assert narrower["choice"] == "onnxruntime int8, reduce_range"
    assert reference["timing"]["rounds"] == stored["timing"]["rounds"] == 2
    text = page.read_text()
    assert text.startswith("# Ours\n")
    assert text.endswith("The end.\n")
    assert "| `int8w` | storage | Weights stored as int8: one symmetric scale an output channel" in text
    assert f"| `int8w` | 5 | {stored['timing']['ratio']:.2f} |" in text


def test_a_run_goes_on_where_it_was(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*small, "--choices", "fp16w", "--steps", "build"]
    assert catalogue.main(given) == 0
    first = rows(tmp_path)
    assert [found["timing"] for found in first] == [None, None]
    capsys.readouterr()
    assert catalogue.main(given) == 0
    assert (rows(tmp_path), capsys.readouterr().err) == (first, "")
    monkeypatch.setattr(catalogue, "state", lambda: "another")
    assert catalogue.main([*given, "--keep"]) == 0
    assert rows(tmp_path) == first
    assert catalogue.main(given) == 0
    assert [found["state"] for found in rows(tmp_path)] == ["another", "another"]
    assert catalogue.main([*small, "--choices", "fp16w", "--steps", "latency"]) == 0
    assert all(found["timing"]["ratio"] > 0 for found in rows(tmp_path))


def test_an_unknown_choice_or_step_is_refused_with_what_exists(
    small: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="no choice 'int9' of mine; expected some of exact, "):
        catalogue.main([*small, "--choices", "int9"])
    with pytest.raises(SystemExit):
        catalogue.main([*small, "--steps", "sing"])
    assert "no step 'sing'; expected some of build, latency" in capsys.readouterr().err


def test_every_single_choice_gets_a_row(small: tuple[str, ...]) -> None:
    found = subject(small[1], Path(small[3]))
    singles = {choice for offered in found.offered.values() for choice in offered if "+" not in choice}
    assert singles <= set(names(found))
    assert {"exact", "int8w", "int4w", "fp16w", "spatial@0.5", "lowrank@0.5+int8", "int8"} <= set(names(found))


def test_a_layer_takes_as_much_of_a_composition_as_it_offers() -> None:
    offered = {
        "conv1": ("exact", "int8"),
        "conv2": ("exact", "int8", "spatial@0.5", "int4w", "spatial@0.5+int4w+int8"),
        "conv3": ("exact", "spatial@0.5"),
        "conv4": ("exact", "int8", "int4w", "int4w+int8"),
        "pool1": ("exact",),
    }
    assert everywhere(offered, "spatial@0.5+int4w+int8") == {
        "conv1": "int8",
        "conv2": "spatial@0.5+int4w+int8",
        "conv3": "spatial@0.5",
        "conv4": "int4w+int8",
        "pool1": "exact",
    }
    assert set(everywhere(offered, "int4w").values()) == {"int4w", "exact"}


def test_a_mask_everywhere_leaves_each_layer_what_it_is_offered_then(small: tuple[str, ...]) -> None:
    found = subject(small[1], Path(small[3]))
    assert {"exact:0.75>0.75", "int4w+int8:0.5>0.5"} <= set(names(found))
    assert chosen(found, "int8") == everywhere(found.offered, "int8")
    masked = chosen(found, "int4w+int8:0.75>0.75")
    # What is left of the second convolution reads 9 channels, too few for groups of int4.
    assert masked["conv1"] == "int8:1>0.75"
    assert masked["conv2"] == "int8:0.75>0.75"
    assert masked["dense1"] == "int4w+int8:0.75>0.75"
    assert masked["dense2"] == "int4w+int8:0.75>1"


def test_rows_are_found_by_network_choice_and_state(tmp_path: Path) -> None:
    kept = Rows(tmp_path / "rows.json")
    timing = Timing.of([1.0, 1.2, 1.1], [2.0, 2.0, 2.0], "here")
    kept.put(row())
    kept.put(row(choice="int4w"))
    kept.put(row(timing=timing))
    read = Rows(tmp_path / "rows.json")
    assert [found.choice for found in read] == ["int8w", "int4w"]
    assert read.find("5eed", "int8w", "now") == row(timing=timing)
    assert read.find("5eed", "int8w", "later") is None
    assert read.find("5eed", "int8w", None) is not None
    assert read.find("other", "int8w", None) is None


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine slows down to a half in the third round, for both.
    timing = Timing.of([1.0, 1.0, 2.0], [2.0, 2.0, 4.0], "here")
    assert (timing.ratio, timing.quartiles, timing.ms) == (0.5, (0.5, 0.5), 1.0)


def test_impossible_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        row(weight_bytes=0)
    with pytest.raises(ValueError, match="expected positive"):
        dataclasses.replace(Timing.of([1.0], [1.0], "here"), ratio=0.0)


def test_the_state_changes_with_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_rows, "ROOT", tmp_path)
    (tmp_path / "planner").mkdir()
    (tmp_path / "planner" / "plan.py").write_text("A = 1\n")
    first = catalogue_rows.state()
    assert catalogue_rows.state() == first
    (tmp_path / "planner" / "plan.py").write_text("A = 2\n")
    assert catalogue_rows.state() != first


def test_lines_go_between_the_marks_and_nowhere_else() -> None:
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert between(page, "x", ["new"]) == "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert between(between(page, "x", ["new"]), "x", ["new"]) == between(page, "x", ["new"])
    with pytest.raises(SystemExit, match="expected one <!-- y -->"):
        between(page, "y", [])
