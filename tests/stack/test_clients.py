"""The clients that people have: each against a running service, none of them changed."""

import base64
import io
import json
import warnings

import httpx
import openai
import pytest
import webuiapi
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from PIL import Image

pytestmark = pytest.mark.stack

APPLE = "a red apple"
FAST = {"num_inference_steps": 4, "seed": 7}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture(scope="module")
def client(stack):
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def webui(stack):
    api = webuiapi.WebUIApi(host="127.0.0.1", port=stack.port)
    yield api
    api.session.close()


class TestOpenAI:
    def test_a_prompt_alone_gives_both_a_picture_and_its_address(self, client, stack):
        response = client.images.generate(prompt=APPLE, extra_body=FAST)

        (image,) = response.data
        assert opened(base64.b64decode(image.b64_json)).size == (64, 64)
        assert httpx.get(image.url).content == base64.b64decode(image.b64_json)
        assert image.seed == 7
        assert image.finish_reason == "stop"

    @pytest.mark.parametrize(
        ("wanted", "other"), [("b64_json", "url"), ("url", "b64_json")], ids=["b64_json", "url"]
    )
    def test_a_response_format_gives_that_alone(self, client, wanted, other):
        response = client.images.generate(
            prompt=APPLE, n=2, response_format=wanted, extra_body=FAST
        )

        assert [image.seed for image in response.data] == [7, 8]
        assert all(getattr(image, wanted) for image in response.data)
        assert not any(getattr(image, other) for image in response.data)

    @pytest.mark.parametrize("name", ["dall-e-2", "dall-e-3", "gpt-image-1", "emoji"])
    def test_names_and_sizes_that_are_built_in_are_understood(self, client, name):
        response = client.images.generate(
            model=name, prompt=APPLE, size="1024x1024", quality="hd", user="me", extra_body=FAST
        )

        assert response.size == "64x64"
        assert response.model == "emoji"

    def test_the_format_of_the_file_can_be_chosen(self, client):
        response = client.images.generate(
            prompt=APPLE, output_format="webp", output_compression=80, extra_body=FAST
        )

        assert opened(base64.b64decode(response.data[0].b64_json)).format == "WEBP"

    def test_a_stream_ends_with_the_picture(self, client):
        events = list(client.images.generate(prompt=APPLE, stream=True, extra_body=FAST))

        assert [event.type for event in events] == ["image_generation.completed"]
        assert opened(base64.b64decode(events[0].b64_json)).size == (64, 64)
        assert events[0].usage.total_tokens == 0

    def test_a_stream_shows_pictures_on_their_way_if_asked(self, client):
        slow = {"num_inference_steps": 60, "seed": 7}
        events = list(
            client.images.generate(prompt=APPLE, stream=True, partial_images=2, extra_body=slow)
        )

        *partial, completed = events
        assert 1 <= len(partial) <= 2  # a busy machine may miss one: only the latest is kept
        assert {event.type for event in partial} == {"image_generation.partial_image"}
        assert [event.partial_image_index for event in partial] == [0, 1][: len(partial)]
        assert opened(base64.b64decode(partial[0].b64_json)).format == "JPEG"
        assert completed.type == "image_generation.completed"

    def test_an_unknown_model_is_named_in_their_terms(self, client):
        with pytest.raises(openai.NotFoundError) as refused:
            client.images.generate(model="Acme/None-Such", prompt=APPLE)

        error = refused.value
        assert (error.code, error.type) == ("model_not_found", "invalid_request_error")
        assert error.request_id

    def test_a_field_out_of_bounds_is_a_400_that_names_it(self, client):
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(prompt=APPLE, n=100)

        assert refused.value.param == "n"

    def test_a_size_that_somebody_chose_is_not_changed_silently(self, client):
        with pytest.raises(openai.BadRequestError, match="nearest"):
            client.images.generate(prompt=APPLE, size="100x100")

    def test_the_models_are_listed_and_read(self, client):
        assert "emoji" in [model.id for model in client.models.list()]
        assert client.models.retrieve("emoji").object == "model"
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve("none-such")
        assert refused.value.code == "model_not_found"

    def test_a_client_that_goes_away_leaves_nothing_running(self, client, stack):
        with pytest.raises(openai.APITimeoutError):
            client.images.generate(
                prompt="a boat", timeout=1, n=8, extra_body={"num_inference_steps": 100}
            )

        def is_cancelled() -> bool:
            newest = stack.http.get("/v1/generations?limit=1").json()["data"][0]
            assert newest["request"]["prompt"] == "a boat"
            return newest["state"] == "cancelled"

        stack.wait_until(is_cancelled, 30)


class TestA1111:
    def test_txt2img(self, webui):
        result = webui.txt2img(
            prompt=APPLE, steps=4, seed=7, cfg_scale=5, width=512, height=512, batch_size=2
        )

        assert [image.size for image in result.images] == [(64, 64)] * 2
        assert result.info["all_seeds"] == [7, 8]
        assert result.info["sd_model_name"] == "emoji"

    def test_the_model_is_listed_and_can_be_set(self, webui):
        assert "emoji" in webui.util_get_model_names()
        webui.util_set_model("emoji")

        assert webui.get_options()["sd_model_checkpoint"] == "emoji"
        assert webui.util_get_current_model() == "emoji"

    def test_progress_samplers_schedulers_and_interrupt(self, webui):
        webui.util_wait_for_ready()

        assert webui.get_samplers()[0]["name"]
        assert webui.get_schedulers()[0]["name"]
        assert webui.interrupt() is not None

    def test_png_info_reads_what_a_picture_says(self, webui):
        image = webui.txt2img(prompt=APPLE, steps=4, seed=7).image

        assert APPLE in webui.png_info(image).info

    def test_a_model_that_is_not_there_is_an_error(self, webui):
        with pytest.raises(RuntimeError, match="404"):
            webui.txt2img(prompt=APPLE, override_settings={"sd_model_checkpoint": "none-such"})


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def _closed(self):
        """Its connections are the module's own."""
        yield
        close_session()

    def test_text_to_image(self, stack):
        client = InferenceClient(base_url=f"{stack.url}/hf/models/emoji", api_key="any")
        image = client.text_to_image(
            APPLE, num_inference_steps=4, seed=7, width=64, height=64, guidance_scale=5.0
        )

        assert image.size == (64, 64)
        assert APPLE in image.info["parameters"]

    def test_errors_are_told(self, stack):
        nowhere = InferenceClient(base_url=f"{stack.url}/hf/models/none-such", api_key="any")
        with pytest.raises((HfHubHTTPError, BadRequestError), match="none-such"):
            nowhere.text_to_image(APPLE)


def test_langchains_tool_returns_an_address(stack):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

        tool = DallEAPIWrapper(api_key="any", base_url=f"{stack.url}/v1", model="dall-e-3")
        address = tool.run(APPLE)
        tool.client._client.close()

    assert opened(httpx.get(address).content).size == (64, 64)


class TestOpenWebUI:
    """Its calls as it sends them: it is a server itself, too large to install here."""

    def test_its_openai_engine(self, stack):
        answer = stack.http.post(
            "/v1/images/generations?api-version=",
            json={
                "model": "gpt-image-1",
                "prompt": APPLE,
                "n": 1,
                "size": "512x512",
                "response_format": "b64_json",
            },
            headers={"Authorization": "Bearer any"},
        ).json()

        # It takes a url first, if there is one, and refuses those of private hosts.
        assert not answer["data"][0].get("url")
        assert opened(base64.b64decode(answer["data"][0]["b64_json"])).format == "PNG"

    def test_its_automatic1111_engine(self, stack):
        basic = {"authorization": "Basic " + base64.b64encode(b"user:any").decode()}
        options = stack.http.get("/sdapi/v1/options", headers=basic).json()
        models = stack.http.get("/sdapi/v1/sd-models", headers=basic).json()
        assert {"title", "model_name"} <= set(models[0])
        options["sd_model_checkpoint"] = models[0]["title"]
        assert stack.http.post("/sdapi/v1/options", json=options, headers=basic).is_success

        body = {"prompt": APPLE, "batch_size": 1, "width": 512, "height": 512, "steps": 4}
        answer = stack.http.post(
            "/sdapi/v1/txt2img", json=body | {"negative_prompt": ""}, headers=basic
        ).json()

        assert opened(base64.b64decode(answer["images"][0])).size == (64, 64)
        assert json.loads(answer["info"])["steps"] == 4
