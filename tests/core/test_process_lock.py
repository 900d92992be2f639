import os
import sys
from pathlib import Path

import pytest

from core.process_lock import HeldByAnother, exclusive


def test_who_holds_it_is_told_until_it_is_free(tmp_path):
    path = tmp_path / "one.lock"
    with exclusive(path):
        with pytest.raises(HeldByAnother) as refused, exclusive(path):
            pass
        assert refused.value.pid == str(os.getpid())
    with exclusive(path):
        assert path.read_text() == str(os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a file that is always full")
def test_a_full_disk_takes_it_from_nobody():
    full = Path("/dev/full")
    with exclusive(full), pytest.raises(HeldByAnother), exclusive(full):
        pass


def test_where_it_cannot_be_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "nowhere" / "one.lock"):
        pass
