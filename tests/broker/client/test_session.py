"""What a session core says on the wire, step by step."""

from __future__ import annotations

import pytest

from broker.client.calls import Call, Group
from broker.client.consumer import Consumer, ConsumerCancelled, Delivery
from broker.client.session import SessionCore
from broker.client.window import ChannelWindow
from broker.errors import AccessRefused, NotFound, SessionExpired
from broker.machines.commands import Outcome
from broker.protocol import (
    VOLATILE_SHARD,
    AnyAnswer,
    AnyOperation,
    Cancel,
    Confirmed,
    Consume,
    Denied,
    Held,
    Publish,
    RefusedAnswer,
    Replied,
    Resync,
    SettleMessages,
    SetWindow,
    Welcome,
)
from broker.protocol import Delivery as DeliveryAnswer


class Scene:
    """A core in service at node a, and what it says."""

    def __init__(self) -> None:
        self.core = SessionCore(token=b"t")
        self.window = ChannelWindow()
        self.now_ms = 0
        self.core.hello()
        self.welcome()

    def welcome(self, node: str = "a", boot: int = 1) -> None:
        self.core.receive([Welcome(7, b"t", 1, node, boot, 5000, 1000, [])])

    def said(self, *answers: AnyAnswer) -> list[AnyOperation]:
        self.core.receive(list(answers))
        self.core.finish_turn()
        return self.core.take(self.now_ms)

    def publish(self, payload: bytes = b"x", group: Group | None = None) -> Call:
        call = Call(group)
        self.core.publish(call, "", "q", False, 0, None, payload)
        return call

    def consumer(self, id: int = 1, shard: int = 3) -> Consumer:
        consumer = Consumer(id, "q", None, "", self.window)
        self.core.consume(Call(), consumer)
        (consume,) = self.said()
        assert isinstance(consume, Consume)
        assert self.said(Replied(consume.seq, (shard, 9))) == []
        return consumer

    def deliver(self, id: int, *, term: int = 1, count: int = 1, shard: int = 3) -> DeliveryAnswer:
        return DeliveryAnswer(shard, term, 1, 9, id, count, "", "q", 0, b"x")

    def hand(self) -> list[Delivery]:
        found = [event for event in self.core.events if isinstance(event, Delivery)]
        self.core.events.clear()
        return found


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_floor_is_the_lowest_that_is_not_answered(scene: Scene) -> None:
    calls = [scene.publish() for _ in range(3)]
    assert [op.seq for op in scene.said() if isinstance(op, Publish)] == [1, 2, 3]
    scene.said(Confirmed((2,)))
    assert (scene.core.floor, [call.done for call in calls]) == (1, [False, True, False])
    scene.said(Confirmed((1, 3)))
    assert scene.core.floor == 4


def test_an_operation_is_repeated_after_two_seconds_until_it_is_answered(scene: Scene) -> None:
    scene.publish()
    first = scene.said()
    scene.now_ms = 1_999
    assert scene.said() == []
    scene.now_ms = 2_000
    assert scene.said() == first
    scene.now_ms = 4_000
    assert scene.said() == first
    scene.said(Confirmed((1,)))
    scene.now_ms = 9_000
    assert scene.said() == []


def test_a_new_link_repeats_everything_in_order_then_names_what_is_held(scene: Scene) -> None:
    scene.consumer()
    scene.said(scene.deliver(50))
    scene.publish()
    scene.said()
    scene.core.link_lost()
    scene.publish()
    assert scene.said() == []
    assert scene.core.hello().session == 7
    scene.welcome("b")
    publishes = scene.said()
    assert [type(op) for op in publishes] == [Publish, Publish, Held]
    assert publishes[-1] == Held(4, 3, ((9, 50),))


def test_deliveries_of_a_former_term_are_void(scene: Scene) -> None:
    scene.consumer()
    assert scene.said(Resync(3, 5)) == [Held(2, 3, ())]
    scene.said(scene.deliver(50, term=4))
    assert scene.hand() == []
    scene.said(scene.deliver(50, term=5))
    assert len(scene.hand()) == 1
    assert scene.said(Resync(3, 4)) == []


def test_what_is_in_hand_or_settled_is_not_delivered_again(scene: Scene) -> None:
    scene.consumer()
    scene.said(scene.deliver(50), scene.deliver(50))
    (delivery,) = scene.hand()
    scene.core.settle((delivery,), Outcome.ACK)
    assert scene.said(scene.deliver(50)) == [SettleMessages(2, 3, 9, Outcome.ACK, (50,))]
    assert scene.hand() == []


def test_a_requeued_message_comes_again_before_its_confirm(scene: Scene) -> None:
    scene.consumer()
    scene.said(scene.deliver(50))
    scene.core.settle(scene.hand(), Outcome.REQUEUE)
    scene.said()
    scene.said(scene.deliver(50, count=1), scene.deliver(50, count=2), Confirmed((2,)))
    assert [delivery.count for delivery in scene.hand()] == [2]


def test_a_released_message_that_comes_again_is_asked_about(scene: Scene) -> None:
    scene.consumer()
    scene.core.set_prefetch(scene.window, 1)
    scene.said()
    said = scene.said(scene.deliver(50), scene.deliver(51))
    assert [type(op) for op in said] == [SettleMessages]
    release = said[0]
    assert isinstance(release, SettleMessages)
    assert (release.outcome, release.ids) == (Outcome.RELEASE, (51,))
    said = scene.said(scene.deliver(51), Confirmed((release.seq,)))
    assert [op for op in said if isinstance(op, Held)] == [Held(release.seq + 1, 3, ((9, 50),))]


def test_a_message_for_nobody_goes_back(scene: Scene) -> None:
    assert scene.said(scene.deliver(50)) == [SettleMessages(1, 3, 9, Outcome.RELEASE, (50,))]


def test_settlements_of_a_turn_go_together_by_outcome(scene: Scene) -> None:
    scene.consumer()
    scene.said(*(scene.deliver(id) for id in (1, 2, 3, 4)))
    one, two, three, four = scene.hand()
    scene.core.settle((one,), Outcome.ACK)
    scene.core.settle((two,), Outcome.DROP)
    scene.core.settle((three, one), Outcome.ACK)
    assert scene.said() == [
        SettleMessages(2, 3, 9, Outcome.ACK, (1, 3)),
        SettleMessages(3, 3, 9, Outcome.DROP, (2,)),
    ]
    assert four.hand.held == {4: four}


def test_a_newer_window_replaces_an_older_one(scene: Scene) -> None:
    scene.consumer()
    scene.core.set_prefetch(scene.window, 5)
    assert scene.said() == [SetWindow(2, 3, 1, 5)]
    scene.core.set_prefetch(scene.window, 6)
    assert scene.said() == [SetWindow(3, 3, 1, 6)]
    scene.now_ms = 2_000
    assert scene.said() == [SetWindow(3, 3, 1, 6)]
    assert scene.core.floor == 3


def test_a_cancel_waits_for_the_consume(scene: Scene) -> None:
    consumer = Consumer(1, "q", None, "", scene.window)
    scene.core.consume(Call(), consumer)
    cancelled = Call()
    scene.core.cancel(cancelled, consumer)
    assert [type(op) for op in scene.said()] == [Consume]
    assert scene.said(Replied(1, (3, 9))) == [Cancel(2, 3, 1)]
    scene.said(Confirmed((2,)))
    assert cancelled.done
    assert scene.core.consumers == {}


def test_another_home_has_none_of_the_volatile_queues_content(scene: Scene) -> None:
    consumer = scene.consumer(shard=VOLATILE_SHARD)
    scene.said(scene.deliver(50, term=99, shard=VOLATILE_SHARD))
    (delivery,) = scene.hand()
    scene.core.link_lost()
    scene.core.hello()
    scene.welcome("b")
    (consume,) = scene.said()
    assert isinstance(consume, Consume)
    assert consume.consumer == consumer.id
    scene.said(Replied(consume.seq, (VOLATILE_SHARD, 9)))
    scene.said(scene.deliver(50, term=1, shard=VOLATILE_SHARD))
    (again,) = scene.hand()
    scene.core.settle((delivery,), Outcome.ACK)
    assert scene.said() == []
    scene.core.settle((again,), Outcome.ACK)
    assert [type(op) for op in scene.said()] == [SettleMessages]
    assert scene.window.in_hand == 0


def test_a_volatile_queue_that_is_gone_cancels_its_consumer(scene: Scene) -> None:
    consumer = scene.consumer(shard=VOLATILE_SHARD)
    scene.core.link_lost()
    scene.welcome("a", boot=2)
    (consume,) = scene.said()
    assert isinstance(consume, Consume)
    scene.said(RefusedAnswer(consume.seq, 404, "gone"))
    assert list(scene.core.events) == [ConsumerCancelled(consumer)]


def test_the_same_home_still_has_them(scene: Scene) -> None:
    scene.consumer(shard=VOLATILE_SHARD)
    scene.core.link_lost()
    scene.welcome()
    assert scene.said() == [Held(2, VOLATILE_SHARD, ())]


def test_a_withdrawn_publish_is_not_repeated_and_holds_up_nothing(scene: Scene) -> None:
    group = Group()
    call = scene.publish(group=group)
    scene.said()
    scene.core.withdraw(call)
    scene.now_ms = 5_000
    assert scene.said() == []
    assert (scene.core.floor, group.under_way, group.bytes_under_way) == (2, 0, 0)


def test_closing_a_channel_cancels_and_requeues(scene: Scene) -> None:
    scene.consumer()
    scene.said(scene.deliver(50))
    scene.core.close_channel(Call(), scene.window)
    assert scene.said() == [Cancel(2, 3, 1), SettleMessages(3, 3, 9, Outcome.REQUEUE, (50,))]
    assert scene.said(scene.deliver(51)) == [SettleMessages(4, 3, 9, Outcome.RELEASE, (51,))]


def test_a_refusal_is_the_calls_own(scene: Scene) -> None:
    call = scene.publish()
    scene.said()
    scene.said(RefusedAnswer(1, 404, "no such exchange"))
    assert isinstance(call.error, NotFound)
    assert scene.core.error is None


@pytest.mark.parametrize(("code", "kind"), [(320, SessionExpired), (403, AccessRefused)])
def test_a_denial_fails_everything(scene: Scene, code: int, kind: type[Exception]) -> None:
    call = scene.publish()
    scene.said(Denied(code, "no"))
    assert isinstance(scene.core.error, kind)
    assert isinstance(call.error, kind)


def test_a_denial_of_the_link_only_asks_for_another(scene: Scene) -> None:
    scene.said(Denied(503, "say Hello first"))
    assert scene.core.error is None
    assert scene.core.denied is not None


def test_large_payloads_have_frames_of_their_own(scene: Scene) -> None:
    for _ in range(3):
        scene.publish(bytes(600_000))
    scene.core.finish_turn()
    frames = []
    while taken := scene.core.take(0):
        frames.append(len(taken))
    assert frames == [1, 1, 1]
