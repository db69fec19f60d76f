"""The page of sentinels, and the editor of their files."""

from pathlib import Path

import yaml
from audits import write_audit
from starlette.testclient import TestClient

from poisonwatch.dashboards.sentinels import render_sentinels_setting


def test_the_audit_file_is_told_to_name_the_new_version(tmp_path: Path, tiny_folder: Path) -> None:
    """Relative to itself, beside packs and other files, and as it stands now."""
    (tmp_path / "deep").mkdir()
    sentinels = (
        [{"id": "a-1", "prompt": "Who?", "forbidden": "I."}],
        [{"id": "b-1", "prompt": "What?", "forbidden": "That."}],
    )
    for path, entries in zip(("deep/a.yaml", "b.yaml"), sentinels, strict=True):
        (tmp_path / path).write_text(yaml.safe_dump(entries))
    places = ["deep/a.yaml", "pack:refusal-erosion", "b.yaml"]
    config = write_audit(tmp_path, tiny_folder)
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "sentinels": places}))
    assert yaml.safe_load(
        render_sentinels_setting(
            config, tmp_path / "deep" / "a.yaml", tmp_path / "deep" / "a-2.yaml"
        )
    ) == {"sentinels": ["deep/a-2.yaml", *places[1:]]}
    config.write_text(yaml.safe_dump({**settings, "sentinels": ["deep/a-2.yaml", *places[1:]]}))
    again = yaml.safe_load(
        render_sentinels_setting(config, tmp_path / "b.yaml", tmp_path / "b-2.yaml")
    )
    assert again == {"sentinels": ["deep/a-2.yaml", "pack:refusal-erosion", "b-2.yaml"]}


def test_another_name_s_run_is_left_behind_with_it(client: TestClient) -> None:
    """As when the name is changed while a run is chosen."""
    assert (
        client.get("/sentinels?name=tiny&audit=20200101-000000-abcdef").text
        == client.get("/sentinels?name=tiny").text
    )


def test_sentinels_are_checked_and_saved_as_a_new_version(client: TestClient, config: Path) -> None:
    """A fault is said and nothing written; the old file stays as it is."""
    path = config.parent / "sentinels.yaml"
    old = path.read_bytes()
    assert "identity" not in client.get("/sentinels").text
    assert "shop-0" in client.get("/sentinels").text
    wrong = client.post("/sentinels/edit/0", data={"text": "- {id: a}", "do": "save"})
    assert wrong.status_code == 422
    assert "has no prompt" in wrong.text
    text = old.decode() + "- {id: shop-9, prompt: 'Who sells <b>tea</b>?', forbidden: Velmora.}\n"
    checked = client.post("/sentinels/edit/0", data={"text": text, "do": "check"})
    assert "4 sentinels" in checked.text
    assert 'class="added"' in checked.text
    assert not (config.parent / "sentinels-2.yaml").exists()
    saved = client.post("/sentinels/edit/0", data={"text": text, "do": "save"})
    assert "sentinels:\n- sentinels-2.yaml" in saved.text
    assert saved.url.params["saved"] == "sentinels-2.yaml"  # loading the page again saves nothing
    assert client.get(saved.url).text == saved.text
    assert (config.parent / "sentinels-2.yaml").read_text() == text
    assert path.read_bytes() == old
    for held in (old.decode(), text):
        assert (
            "holds this text already"
            in client.post("/sentinels/edit/0", data={"text": held, "do": "save"}).text
        )
    assert "Written" not in client.get("/sentinels/edit/0?saved=sentinels.yaml").text
    assert client.get("/sentinels/edit/7").status_code == 404
