"""The OpenAPI says all that is answered, and schemathesis finds nothing that it does not say."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gently_bluesky import Catalog
from tests.serve_rig import API, KEY, Served, recorded, served

REAL: dict[str, list[str]] = {}
"""Values that there are, by the names of path parameters: half of the requests name those."""

SEMANTIC: list[Any] = [positive_data_acceptance]
"""That what fits a schema is always taken: of slices, times and colour maps no schema says what they mean."""

FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=500)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("openapi") / "root"
    recorded(root, 3)
    recorded(root, 2, image_format="ome-zarr")
    runs = list(Catalog(root))
    resource = runs[0]["primary"][KEY].row(0).volumes[KEY].resource
    REAL.update(run=["-1", "-2", runs[0].uid], stream=["primary"], key=[KEY], session=["s"], resource=[resource])
    REAL.update(index=["0", "1", "5"], path=["zarr.json", "0/zarr.json", "s0/zarr.json", "0/c/0/1/0/0"])
    with served(root, may_tag=True) as found:
        yield found


@pytest.fixture(scope="module", params=GenerationMode)
def api(request: pytest.FixtureRequest, server: Served) -> Any:
    """The API as schemathesis sees it: for valid requests most runs, streams and keys are such as there are."""
    schema = schemathesis.openapi.from_url(f"{server.url}{API}/openapi.json")

    def real(context: Any, parameters: Any) -> Any:
        for name in parameters or {}:
            if name in REAL and len(str(parameters[name])) % 4:
                parameters[name] = REAL[name][len(str(parameters[name])) % len(REAL[name])]
        return parameters

    if request.param is GenerationMode.POSITIVE:
        schema.hook("map_path_parameters")(real)
    return schema, request.param


@pytest.mark.parametrize(
    "most", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.long)]
)
def test_schemathesis_finds_nothing(api: Any, most: settings) -> None:
    """Valid and invalid requests of every operation: each answer is as the OpenAPI has it, and none a failure."""
    schema, mode = api
    tried = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @most
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case: Case[Any]) -> None:
            case.call_and_validate(excluded_checks=SEMANTIC)

        with contextlib.suppress(Unsatisfiable):  # what takes no parameter cannot be asked wrongly
            hold()
        tried.append(operation.label)
    assert len(tried) >= 18


def test_every_operation_says_its_answers_and_problems(server: Served) -> None:
    said = server.json("/openapi.json")
    operations = [each for path in said["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["description"]
        answers = operation["responses"]
        assert {"200", "401", "404", "410", "422", "503"} <= set(answers)
        assert answers["200"]["content"]
        for status, answer in answers.items():
            if int(status) >= 400 and status != "416":
                assert list(answer["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in said["components"]["schemas"]
    assert "ValidationError" not in said["components"]["schemas"]
