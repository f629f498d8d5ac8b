"""Configurations that come with a command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from predictd.server.config.model_config import All, Latest, ModelConfig, Specific
from predictd.server.errors import InvalidRequestError
from predictd.server.repository.override import ORIGIN, read_override


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, {}),
        ({"name": "m"}, {}),
        ({"max_batch_size": 8}, {"max_batch_size": 8}),
        ({"max_batch_size": 0}, {"max_batch_size": 1}),
        ({"dynamic_batching": {"max_queue_delay_microseconds": 250}}, {"max_delay_ns": 250_000}),
        ({"dynamic_batching": {"max_queue_delay_microseconds": "250"}}, {"max_delay_ns": 250_000}),
        ({"dynamic_batching": {}}, {}),
        ({"instance_group": [{"count": 2}, {"kind": "KIND_CPU"}]}, {"instances": 3}),
        ({"version_policy": {"latest": {"num_versions": 2}}}, {"version_policy": Latest(2)}),
        ({"version_policy": {"latest": {}}}, {"version_policy": Latest(1)}),
        ({"version_policy": {"all": {}}}, {"version_policy": All()}),
        ({"version_policy": {"specific": {"versions": ["3", 1]}}}, {"version_policy": Specific((1, 3))}),
    ],
)
def test_fields_become_settings_that_say_where_they_come_from(config: Any, wanted: Any) -> None:
    read = read_override(json.dumps(config), "m")
    assert read == ModelConfig(**wanted)
    assert read.origins == dict.fromkeys(wanted, ORIGIN)


def test_no_text_says_nothing() -> None:
    assert read_override("", "m") == ModelConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the config is not JSON"),
        ("[" * 100_000, "the config is not JSON"),
        ("[]", "config must be an object"),
        ('{"name": "n"}', "name is 'n', but the model is called 'm'"),
        ('{"backend": "python"}', "'backend' cannot be overridden"),
        ('{"max_batchsize": 1}', "did you mean 'max_batch_size'?"),
        ('{"max_batch_size": -1}', "max_batch_size must be a whole number from 0"),
        ('{"max_batch_size": true}', "max_batch_size must be a whole number"),
        ('{"max_batch_size": 1.5}', "max_batch_size must be a whole number"),
        ('{"max_batch_size": 1e400}', "max_batch_size must be a whole number"),
        ('{"max_batch_size": "99999999999999999999"}', "max_batch_size must be a whole number"),
        ('{"dynamic_batching": 1}', "dynamic_batching must be an object"),
        ('{"dynamic_batching": {"preserve_ordering": true}}', "dynamic_batching.preserve_ordering cannot"),
        (
            '{"dynamic_batching": {"max_queue_delay_microseconds": 60000001}}',
            "dynamic_batching.max_queue_delay_microseconds must be a whole number from 0 to 60000000",
        ),
        ('{"instance_group": []}', "instance_group must be an array of groups"),
        ('{"instance_group": [{"count": 0}]}', "instance_group.count must be a whole number from 1"),
        ('{"instance_group": [{"count": 1000}, {"count": 100}]}', "instance_group.count must be"),
        ('{"instance_group": [{"kind": "KIND_GPU"}]}', "instance_group.kind cannot be 'KIND_GPU' here"),
        ('{"instance_group": [{"gpus": [0]}]}', "instance_group.gpus cannot be overridden"),
        ('{"version_policy": {}}', "version_policy takes one of latest, all, specific"),
        ('{"version_policy": {"all": {}, "latest": {}}}', "version_policy takes one of"),
        ('{"version_policy": {"specific": {"versions": []}}}', "at least one version"),
        ('{"version_policy": {"specific": {"versions": [0]}}}', "versions must be a whole number from 1"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_override(text, "m")
    assert message in str(caught.value)
