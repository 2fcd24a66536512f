"""The `dut` fixture is a pytest-embedded Dut on a board of ours."""

from __future__ import annotations

from pytest_embedded import Dut


def test_dut_is_a_pytest_embedded_dut_and_expects(dut: Dut) -> None:
    assert isinstance(dut, Dut)
    dut.expect_exact(">>> ", timeout=10)
    dut.write("print(6*7)\r")
    assert dut.expect(rb"\n(\d+)\r?\n", timeout=10).group(1) == b"42"
