from unittest import TestCase, mock

import weft
from weft import Error, functions, native, testing
from weft.native import Err


class Account:
    """Holds money.

    More of it.
    """

    woken, broken = 0, False

    def __init__(self, key, state):
        Account.woken += 1
        self.balance = int(state.get("balance") or 0)

    def deposit(self, input, cx):
        self.balance += int(input)
        cx.state.put("balance", str(self.balance))
        if self.balance < 0:
            raise Error("there is no such deposit")
        return str(self.balance)

    def whose(self, cx):
        return f"{cx.key}'s"

    def pay(self, input, cx):
        to, amount = input.decode().split()
        self.deposit(f"-{amount}".encode(), cx)
        cx.tell("account", to, "deposit", amount)

    def ask(self, input, cx):
        return cx.invoke("account", input.decode(), "whose")

    def ask_a_bank(self, cx):
        try:
            return cx.invoke("bank/desk", "1", "rate", b"!")
        except Error as error:
            return f"no rate: {error}"

    def remind(self, input, cx):
        cx.set_alarm(int(input))

    def forget(self, cx):
        cx.clear_alarm()
        cx.state.delete("balance")

    def alarm(self, cx):
        cx.state.put("reminded", str(cx.now_ms))
        if self.broken:
            raise Error("no bell")

    def _hidden(self):
        pass


class ActorsTest(TestCase):
    def setUp(self):
        this = functions.Component("ledger", "1.0.0")
        for changed in (mock.patch.dict(functions.FUNCTIONS, clear=True), mock.patch.object(functions, "THIS", this)):
            changed.start()
            self.addCleanup(changed.stop)
        self.assertIs(weft.actor("account")(Account), Account)
        Account.woken = 0
        self.actors = testing.Actors()

    def invoke(self, key: str, method: str, input: bytes = b"") -> bytes:
        return self.actors.invoke("account", key, method, input)

    def test_an_actor_is_described(self):
        found = functions.find("account", "actor")
        self.assertEqual((found.kind, found.summary), ("actor", "Holds money."))
        self.assertEqual(sorted(found.actor.methods), ["ask", "ask_a_bank", "deposit", "forget", "pay", "remind", "whose"])

    def test_an_instance_stays_until_it_hibernates_and_state_stays_after_it(self):
        self.assertEqual((self.invoke("ann", "deposit", b"5"), self.invoke("ann", "deposit", b"2")), (b"5", b"7"))
        self.assertEqual((self.invoke("bob", "deposit", b"1"), Account.woken), (b"1", 2))
        self.actors.hibernate()
        self.assertEqual((self.invoke("ann", "deposit", b"1"), Account.woken), (b"8", 3))
        self.assertEqual(self.actors.state("account", "ann"), {b"balance": b"8"})
        self.assertEqual(self.invoke("ann", "whose"), b"ann's")

    def test_a_turn_that_fails_leaves_nothing(self):
        self.invoke("ann", "deposit", b"5")
        with self.assertRaisesRegex(Error, "no such deposit"):
            self.invoke("ann", "pay", b"bob 6")
        self.assertEqual((self.actors.state("account", "ann"), self.actors.messages), ({b"balance": b"5"}, []))
        # Its field was ahead of its state, so the instance is another one.
        self.assertEqual((self.invoke("ann", "deposit", b"1"), Account.woken), (b"6", 2))

    def test_messages_wait_until_they_are_delivered(self):
        self.invoke("ann", "deposit", b"5")
        self.invoke("ann", "pay", b"bob 3")
        self.assertEqual(self.actors.messages, [("account", "bob", "deposit", b"3")])
        self.assertEqual((self.actors.deliver(), self.actors.state("account", "bob")), (1, {b"balance": b"3"}))
        self.assertEqual((self.actors.deliver(), self.actors.messages), (0, []))

    def test_actors_invoke_others_but_never_themselves(self):
        self.assertEqual(self.invoke("ann", "ask", b"bob"), b"bob's")
        with self.assertRaisesRegex(Error, "`account/ann` would wait for itself: account/ann → account/ann"):
            self.invoke("ann", "ask", b"ann")
        self.assertRegex(self.invoke("ann", "ask_a_bank").decode(), "^no rate: `bank/desk` is of another component")
        self.actors.outside = lambda *asked: repr(asked).encode()
        self.assertEqual(self.invoke("ann", "ask_a_bank"), b"('bank/desk', '1', 'rate', b'!')")
        self.assertEqual(self.actors.invoke("ledger/account", "ann", "whose"), b"ann's")

    def test_an_alarm_rings_when_it_is_due(self):
        start = self.actors.now_ms
        for key, after in (("ann", 12), ("bob", 3), ("cid", 13)):
            self.invoke(key, "remind", str(start + after).encode())
        self.assertEqual((self.actors.advance(11), self.actors.alarm_ms("account", "ann")), (1, start + 12))
        self.assertEqual((self.actors.alarm_ms("account", "bob"), self.actors.state("account", "bob")), (None, {b"reminded": str(start + 3).encode()}))
        self.invoke("cid", "forget")
        self.assertEqual((self.actors.alarm_ms("account", "cid"), self.actors.advance(100)), (None, 1))
        self.assertEqual((self.actors.now_ms, self.actors.advance(1)), (start + 111, 0))
        self.invoke("ann", "remind", b"-1")
        self.assertEqual(self.actors.alarm_ms("account", "ann"), 0)

    def test_an_alarm_that_fails_is_still_set(self):
        self.invoke("ann", "remind", b"1")
        with mock.patch.object(Account, "broken", True), self.assertRaisesRegex(Error, "no bell"):
            self.actors.advance(0)
        self.assertEqual(self.actors.alarm_ms("account", "ann"), 1)
        self.assertEqual((self.actors.advance(0), self.actors.alarm_ms("account", "ann")), (1, None))

    def test_alarms_without_end_are_told(self):
        @weft.actor
        class Clock:
            def start(self, cx):
                cx.set_alarm(cx.now_ms)

            alarm = start

        self.actors.invoke("clock", "k", "start")
        with self.assertRaisesRegex(Error, "alarms do not end"):
            self.actors.advance(0)

    def test_methods_are_public_functions_and_the_fallback_takes_the_rest(self):
        for method in ("_hidden", "alarm", "invoke", "woken", "withdraw"):
            with self.assertRaisesRegex(Error, f"`account` has no method `{method}` among `ask`, "):
                self.invoke("ann", method)

        @weft.actor
        class AnyMethod:
            def __init__(self, state):
                state.answer_early()

            def known(self):
                return b"known"

            def invoke(self, method, input):
                return f"{method} {input.decode()}"

        self.assertEqual(self.actors.invoke("any-method", "k", "known"), b"known")
        self.assertEqual(self.actors.invoke("any-method", "k", "other", b"x"), b"other x")
        self.assertTrue(self.actors.answers_early("any-method", "k"))
        with self.assertRaisesRegex(Error, "no function `none`"):
            self.actors.invoke("none", "k", "known")

    def test_entries_come_in_the_order_of_their_keys(self):
        @weft.actor
        class Shelf:
            def fill(self, cx):
                for key in ("b", b"a", "c", b"\xff"):
                    cx.state.put(key, bytearray(b"1"))
                cx.state.delete("c")
                cx.state.delete("never there")

            def look(self, input, cx):
                start, end, limit = input.decode().split(",")
                return b"".join(key for key, _ in cx.state.scan(start, end or None, int(limit)))

        self.actors.invoke("shelf", "k", "fill")
        look = lambda input: self.actors.invoke("shelf", "k", "look", input)
        self.assertEqual((look(b",,9"), look(b"b,,9"), look(b",b,9"), look(b",,1")), (b"ab\xff", b"b\xff", b"a", b"a"))

    def test_state_is_for_turns(self):
        with self.assertRaisesRegex(Error, "no turn of an actor is under way"):
            weft.State().get("balance")

    def test_messages_without_end_are_told(self):
        @weft.actor
        class Echo:
            def shout(self, cx):
                cx.tell("echo", cx.key, "shout")

        self.actors.invoke("echo", "k", "shout")
        with self.assertRaisesRegex(Error, "messages do not end"):
            self.actors.deliver()

    def test_mistakes_are_told_when_the_module_is_read(self):
        def check(message, target):
            with self.assertRaisesRegex(Error, message):
                weft.actor("wrong")(target)

        class Empty: ...

        class Misnamed:
            def deposit(self, amount, cx): ...

        class Params:
            def __init__(self, params): ...
            def get(self): ...

        class AlarmWithInput:
            def get(self): ...
            def alarm(self, input): ...

        check("an actor is a class", lambda: None)
        check("actor `wrong` has no method", Empty)
        check("`deposit` of actor `wrong` has the argument `amount`: there are `input`, `cx`", Misnamed)
        check("`__init__` of actor `wrong` has the argument `params`", Params)
        check("`alarm` of actor `wrong` has the argument `input`", AlarmWithInput)
        with self.assertRaisesRegex(Error, "two functions `account`"):
            weft.actor("account")(Account)

    def test_an_alarm_without_a_function_is_told(self):
        @weft.actor
        class Forgetful:
            def set(self, cx):
                cx.set_alarm(1)

        self.actors.invoke("forgetful", "k", "set")
        with mock.patch.object(native, "logged", []) as logged:
            self.actors.advance(0)
        self.assertEqual(logged, [("warn", "actor `forgetful` has an alarm, and no `def alarm(self, cx)`")])
        self.assertEqual(self.actors.alarm_ms("forgetful", "k"), None)

    def test_a_number_is_no_answer(self):
        @weft.actor
        class Number:
            def get(self):
                return 5

        with self.assertRaisesRegex(Error, "`5` is no answer"):
            self.actors.invoke("number", "k", "get")


class FuturesTest(TestCase):
    def setUp(self):
        this = functions.Component("sums", "1.0.0")
        for changed in (mock.patch.dict(functions.FUNCTIONS, clear=True), mock.patch.object(functions, "THIS", this)):
            changed.start()
            self.addCleanup(changed.stop)
        self.addCleanup(testing.on_spawn, None)

        @weft.task
        def square(input):
            return str(int(input) ** 2)

        self.square = square

    def test_futures_are_joined_once(self):
        futures = [weft.spawn(function, "3") for function in (self.square, "square", "sums/square")]
        self.assertEqual([future.join() for future in futures], [b"9"] * 3)
        with self.assertRaisesRegex(Error, "was joined"):
            futures[0].join()

    def test_a_future_that_failed_is_told_where_it_is_joined(self):
        failed, unknown, outside = weft.spawn(self.square, "x"), weft.spawn("cube", "3"), weft.spawn("other/square", "3")
        for future, message in ((failed, "invalid literal"), (unknown, "no function `cube`"), (outside, "on_spawn")):
            with self.assertRaisesRegex(Error, message):
                future.join()

    def test_select_tells_which_has_ended(self):
        futures = [weft.spawn(self.square, str(n)) for n in range(3)]
        joined = set()
        while futures:
            joined.add(futures.pop(weft.select(futures)).join())
        self.assertEqual(joined, {b"0", b"1", b"4"})
        with self.assertRaisesRegex(Error, "no futures"):
            weft.select([])

    def test_a_future_that_was_cancelled_has_no_result(self):
        future = weft.spawn(self.square, "3")
        future.cancel()
        with self.assertRaisesRegex(Error, "cancelled"):
            future.join()
        future.cancel()

    def test_a_test_stands_in_for_tasks_of_other_components(self):
        def run(function, input):
            if input == b"bad":
                raise Err("refused")
            return function.encode() + input

        testing.on_spawn(run)
        self.assertEqual(weft.spawn("other/cube", b"3").join(), b"other/cube3")
        with self.assertRaisesRegex(Error, "refused"):
            weft.spawn("other/cube", "bad").join()
