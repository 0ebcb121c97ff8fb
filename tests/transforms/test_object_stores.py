"""One client a process, and another one as soon as the keys are others."""

import pytest

from transforms.object_stores import _SharedSession

SETTINGS = {"service_name": "s3", "region_name": "us-east-1"}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def write_keys(folder, token: str) -> None:
    keys = f"[default]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token={token}\n"
    (folder / "credentials").write_text(keys)


def client():
    return _SharedSession().client(**SETTINGS)


def test_a_client_is_shared(tmp_path):
    write_keys(tmp_path, "first")
    assert client() is client()


def test_renewed_keys_are_taken(tmp_path):
    write_keys(tmp_path, "first")
    before = client()
    write_keys(tmp_path, "the second one")
    assert client() is not before
    assert client()._request_signer._credentials.token == "the second one"


def test_another_environment_has_another_client(tmp_path, monkeypatch):
    write_keys(tmp_path, "first")
    before = client()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert client() is not before
