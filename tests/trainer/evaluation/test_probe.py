import shutil

from PIL import Image

from core.detection import DetectorSpec
from core.settings import SHIPPED_MODELS
from diffusion.detectors.loading import load_detector
from trainer.evaluation import probe


def test_two_folders_of_pictures_make_a_probe(tmp_path, capsys):
    model = tmp_path / "model"
    for part in ("image_encoder", "text_encoder", "tokenizer"):
        shutil.copytree(SHIPPED_MODELS / "emoji" / part, model / part)
    for folder, colour in (("fine", "green"), ("not", "red")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64), colour).save(tmp_path / folder / "one.png")
    command = ["--model", str(model), "--fine", str(tmp_path / "fine")]
    assert probe.main([*command, "--not-fine", str(tmp_path / "not")]) == 0

    detector = load_detector(DetectorSpec(name="probe"), model_folder=model)
    [red, green] = detector.scores([Image.new("RGB", (64, 64), name) for name in ("red", "green")])
    assert red["not fine"] > 0.5 > green["not fine"]

    (tmp_path / "not/two.png").write_bytes(b"no picture")
    assert probe.main([*command, "--not-fine", str(tmp_path / "not")]) == 2
    assert "two.png is no picture" in capsys.readouterr().err
    assert probe.main([*command, "--not-fine", str(tmp_path / "empty")]) == 2
    assert "holds 0 pictures" in capsys.readouterr().err
