"""A Redis in memory, an instance that leads, and one that follows it."""

import pytest
import trio

from tests.cluster.members.memory import SOON, Instance, MemoryRedis


@pytest.fixture
def redis():
    return MemoryRedis()


@pytest.fixture
async def leader(redis, nursery):
    instance = Instance(redis, "leader")
    await nursery.start(instance.run)
    await trio.sleep(SOON)
    assert instance.member.leading
    return instance


@pytest.fixture
async def follower(redis, leader, nursery):
    instance = Instance(redis, "follower")
    await nursery.start(instance.run)
    return instance
