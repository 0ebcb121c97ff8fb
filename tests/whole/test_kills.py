"""Commands that write are killed at random moments: what a user does next makes the table as if nothing had been."""

import random

import pytest
from support.kills import CASES, Campaign, kill


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.workers == 1], ids=lambda case: case.command)
def test_a_killed_command_costs_nothing(campaign, case):
    kill(campaign, case, random.Random(14))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_forty_kills_with_one_worker_and_two(campaign):
    chance = random.Random(15)
    for case in chance.choices(CASES, [case.weight for case in CASES], k=40):
        kill(campaign, case, chance)
