"""Nobody's password, token or key comes into what is written down, wherever it stands and whatever it is made of."""

from __future__ import annotations

import itertools

import pytest

from auditor.report.record.redact_urls import arguments_without_passwords, without_passwords

# With signs that end a part of an address, escaped and not.
SECRETS = [
    "s3cret-Zq",
    "s3/cret-Zq",
    "s3:cret-Zq",
    "s3@cret-Zq",
    "s3?cret-Zq",
    "s3#cret-Zq",
    "s3%2Fcret-Zq",
    "s3&cret-Zq",
]
ADDRESSES = [
    "postgresql://ann:{}@h.example/audits",
    "postgresql+psycopg://ann:{}@h.example:5432/audits?sslmode=require",
    "postgresql://{}@h.example/audits",
    "mysql+pymysql://:{}@h.example/audits",
    "POSTGRESQL://ann:{}@h.example/audits",
]
OPTIONS = [
    "postgresql://h.example/audits?password={}",
    "postgresql://h.example/audits?user=ann&passwd={}",
    "postgresql://h.example/audits?sslpassword={}&sslmode=require",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3D{}",
    "snowflake://h.example/audits?token={}",
    "bigquery://h.example/audits?api_key={}",
]


@pytest.mark.parametrize("address", [*ADDRESSES, *OPTIONS])
def test_of_an_address_in_a_command_nothing_secret_is_kept(address: str) -> None:
    for secret, flag in itertools.product(SECRETS, ("", "--db=")):
        (kept,) = arguments_without_passwords([flag + address.format(secret)])
        assert "cret-Zq" not in kept
        assert "ann" not in kept
        assert kept.startswith(flag + address.partition("://")[0])
        if "h.example" in address and not {"@", "?"} & set(secret):
            assert "h.example" in kept and "/audits" in kept


@pytest.mark.parametrize("address", [*ADDRESSES, *OPTIONS])
def test_nor_of_one_in_a_sentence(address: str) -> None:
    for secret in SECRETS:
        if "&" in secret and address in OPTIONS or "?" in secret and address in OPTIONS:
            continue  # there it is the end of the option, as it is for whoever reads the address
        text = f"The history '{address.format(secret)}' cannot be used: refused."
        kept = without_passwords(text)
        assert "cret-Zq" not in kept and kept.startswith("The history '") and kept.endswith("refused."), kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("DRIVER={X};SERVER=h;UID=ann;PWD=s3cret;", "DRIVER={X};SERVER=h;UID=ann;PWD=***;"),
        ("DRIVER={X};PWD={s3;cret}", "DRIVER={X};PWD=***"),
        ("host=h password='s3 cret' dbname=x", "host=h password=*** dbname=x"),
        ("SharedAccessKey=abc;x=1", "SharedAccessKey=***;x=1"),
    ],
)
def test_nor_of_a_driver_s_own_words(text: str, kept: str) -> None:
    assert without_passwords(text) == kept


@pytest.mark.parametrize(
    "plain",
    [
        "auditor scan model.pt --data test.csv --set robustness.epsilon=0.1",
        "--set=pii_leakage.tokens=40",
        "ann@example.com wrote: a ratio of 3:4",
        "sqlite:///audits.db",
        "--attribute=passage=3",
    ],
)
def test_what_is_nobody_s_secret_stays(plain: str) -> None:
    assert without_passwords(plain) == plain
    assert arguments_without_passwords([plain]) == [plain]
