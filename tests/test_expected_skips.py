from pathlib import Path

import pytest

RULE = Path(__file__).with_name("expected_skips.py")
TESTS = {
    "passed": "def test_passed(): pass",
    "listed": """
import pytest
def test_listed():
    pytest.skip("no ../shared here: its real imagery and reference numbers are not public")
""",
    "unlisted": """
import pytest
@pytest.mark.skipif(True, reason="somebody was tired")
def test_unlisted(): pass
""",
    "package": "import pytest; pytest.importorskip('no_such_package_of_dev')",
    "failed": "def test_failed(): assert False",
}


@pytest.mark.parametrize(
    ("names", "exit_code", "named"),
    [
        (("passed", "listed"), pytest.ExitCode.OK, ()),
        (("passed", "unlisted"), pytest.ExitCode.TESTS_FAILED, ("*test_unlisted: *was tired",)),
        (("package",), pytest.ExitCode.TESTS_FAILED, ("*could not import 'no_such_package*",)),
        (("failed", "unlisted"), pytest.ExitCode.TESTS_FAILED, ("*test_unlisted: *was tired",)),
    ],
)
def test_a_skip_that_is_not_listed_fails_the_session(pytester, names, exit_code, named):
    pytester.makeconftest(RULE.read_text(encoding="utf-8"))
    pytester.makepyfile(**{f"test_{name}": TESTS[name] for name in names})
    done = pytester.runpytest()
    assert done.ret == exit_code
    title = "*skips that tests/expected_skips.py does not list*"
    if named:
        done.stdout.fnmatch_lines([title, *named])
    else:
        done.stdout.no_fnmatch_line(title)


def test_the_workers_of_xdist_report_to_one_session(pytester):
    pytester.makeconftest(RULE.read_text(encoding="utf-8"))
    pytester.makepyfile(test_unlisted=TESTS["unlisted"], test_passed=TESTS["passed"])
    done = pytester.runpytest_subprocess("-n", "2")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["*test_unlisted: *was tired"])
