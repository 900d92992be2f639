"""README's section "Deployment" and the stack test say the same commands, in the same order.

The stack test runs them (`make stack-test`); here it is only held that none is left out.
"""

import inspect
import re

import pytest

from deploy.stack_test.order import STEPS
from deploy.stack_test.readme import ROOT, Deployment, deployment

TAKES = re.compile(r'\.readme\("([^"]+)"\)')
README = """
## Deployment

```sh
docker compose up -d --build   # everything
docker compose down
```

Without a GPU: `docker compose -f a.yml -f b.yml up -d --build`.

## Licence
"""


def test_the_steps_take_every_command_in_its_order():
    section = deployment()
    for step in STEPS:
        for words in TAKES.findall(inspect.getsource(step)):
            section.take(words)

    assert section.left == []


def test_the_files_for_a_host_without_a_gpu_are_there():
    files = deployment().files

    assert files == ["docker-compose.yml", "deploy/compose.cpu.yml"]
    assert all((ROOT / file).is_file() for file in files)


def test_each_step_is_tried_once():
    names = [step.__name__ for step in STEPS]

    assert len(set(names)) == len(names)


class TestReading:
    def test_comments_are_left_out(self):
        section = Deployment(README)

        assert section.left == ["docker compose up -d --build", "docker compose down"]
        assert section.files == ["a.yml", "b.yml"]

    def test_a_command_in_another_place_is_found(self):
        section = Deployment(README)

        with pytest.raises(ValueError, match="'down'"):
            section.take("down")

    def test_a_command_that_is_gone_is_found(self):
        section = Deployment(README)
        section.take("--build")
        section.take("down")

        with pytest.raises(ValueError, match="next command"):
            section.take("down")

    @pytest.mark.parametrize("gone", ["## Deployment\n", "```sh\n", "-f b.yml "])
    def test_another_section_is_refused(self, gone):
        with pytest.raises(ValueError, match="Deployment"):
            Deployment(README.replace(gone, ""))
