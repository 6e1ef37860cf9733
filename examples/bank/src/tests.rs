use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use weft::testing::{Message, TestActor};

use super::*;

/// Accounts, and the messages between them, which arrive when a test says so.
#[derive(Default)]
struct Bank {
    accounts: BTreeMap<String, TestActor<Account>>,
    under_way: VecDeque<Message>,
}

impl Bank {
    fn account(&mut self, key: &str) -> &mut TestActor<Account> {
        let account = self.accounts.entry(key.into());
        account.or_insert_with(|| TestActor::new(key))
    }

    fn try_invoke(&mut self, key: &str, method: &str, input: &[u8]) -> Result<Value> {
        let account = self.account(key);
        let answer = account.invoke(method, input)?;
        let told = account.take_told();
        self.under_way.extend(told);
        Ok(serde_json::from_slice(&answer)?)
    }

    fn invoke(&mut self, key: &str, method: &str, input: &Value) -> Value {
        let answer = self.try_invoke(key, method, input.to_string().as_bytes());
        answer.expect("the account answers")
    }

    fn deposit(&mut self, key: &str, amount: u64) -> Value {
        self.invoke(key, "deposit", &json!({ "amount": amount }))
    }

    fn transfer(&mut self, from: &str, to: &str, amount: u64) -> Result<Value> {
        let input = json!({ "to": to, "amount": amount }).to_string();
        self.try_invoke(from, "transfer", input.as_bytes())
    }

    fn balance(&mut self, key: &str) -> u64 {
        let answer = self.invoke(key, "balance", &Value::Null);
        answer["balance"].as_u64().expect("a whole number")
    }

    fn history(&mut self, key: &str) -> Vec<Value> {
        let answer = self.invoke(key, "history", &Value::Null);
        answer["history"].as_array().expect("a list").clone()
    }

    /// Delivers the oldest message.
    fn deliver(&mut self) -> bool {
        let Some(message) = self.under_way.pop_front() else {
            return false;
        };
        assert_eq!(message.actor, "account");
        let delivered = self.try_invoke(&message.key, &message.method, &message.input);
        delivered.expect("a credit is taken");
        true
    }

    /// Balances and messages under way, added up.
    fn total(&mut self) -> u64 {
        let keys: Vec<String> = self.accounts.keys().cloned().collect();
        let balances: u64 = keys.iter().map(|key| self.balance(key)).sum();
        let credit = |message: &Message| -> u64 {
            let credit: Credit = serde_json::from_slice(&message.input).expect("a credit");
            credit.amount
        };
        balances + self.under_way.iter().map(credit).sum::<u64>()
    }
}

#[test]
fn deposits_add_up_and_outlast_the_instance() {
    let mut bank = Bank::default();
    assert_eq!(bank.balance("alice"), 0);
    assert_eq!(bank.deposit("alice", 100), json!({ "balance": 100 }));
    bank.account("alice").sleep();
    assert_eq!(bank.deposit("alice", 20), json!({ "balance": 120 }));
}

#[test]
fn transfers_reach_the_other_account_under_one_id() {
    let mut bank = Bank::default();
    bank.deposit("alice", 100);
    let answer = bank.transfer("alice", "bob", 30).expect("it is covered");
    assert_eq!(answer, json!({ "balance": 70 }));
    assert_eq!((bank.balance("bob"), bank.total()), (0, 100));
    assert!(bank.deliver() && !bank.deliver());
    assert_eq!((bank.balance("alice"), bank.balance("bob")), (70, 30));
    let sent = json!({
        "number": 2, "kind": "sent", "transfer": "alice/1", "to": "bob", "amount": 30, "balance": 70,
    });
    let received = json!({
        "number": 1, "kind": "received", "transfer": "alice/1", "from": "alice", "amount": 30, "balance": 30,
    });
    assert_eq!(bank.history("alice")[1], sent);
    assert_eq!(bank.history("bob"), [received]);
}

#[test]
fn overdrafts_are_refused_and_change_nothing() {
    let mut bank = Bank::default();
    bank.deposit("alice", 100);
    let error = bank.transfer("alice", "bob", 101).expect_err("overdraft");
    assert!(error.message().contains("does not cover"), "{error}");
    assert!(bank.under_way.is_empty());
    assert_eq!(
        (bank.balance("alice"), bank.history("alice").len()),
        (100, 1)
    );
    bank.deposit("alice", u64::MAX - 100);
    let too_much = bank.try_invoke("alice", "deposit", br#"{"amount":1}"#);
    assert!(too_much.is_err());
    assert_eq!(bank.balance("alice"), u64::MAX);
}

#[test]
fn malformed_inputs_are_refused() {
    let mut bank = Bank::default();
    for (method, input) in [
        ("deposit", ""),
        ("deposit", "{}"),
        ("deposit", r#"{"amount":-1}"#),
        ("deposit", r#"{"amount":1.5}"#),
        ("deposit", r#"{"amount":1,"to":"bob"}"#),
        ("transfer", r#"{"amount":1}"#),
        ("withdraw", r#"{"amount":1}"#),
    ] {
        let refused = bank.try_invoke("alice", method, input.as_bytes());
        let error = refused.expect_err(input);
        assert!(error.message().contains(method), "{error}");
    }
    assert!(bank.account("alice").state().is_empty());
}

#[test]
fn the_history_has_the_last_hundred_entries() {
    let mut bank = Bank::default();
    for amount in 1..=130 {
        bank.deposit("alice", amount);
    }
    let history = bank.history("alice");
    let numbers: Vec<u64> = history
        .iter()
        .map(|entry| entry["number"].as_u64().expect("a whole number"))
        .collect();
    assert_eq!(numbers, (31..=130).collect::<Vec<u64>>());
    assert_eq!(history[99]["balance"], 130 * 131 / 2);
}

#[test]
fn the_sum_of_balances_and_messages_stays() {
    let names = ["alice", "bob", "carol"];
    let mut bank = Bank::default();
    for name in names {
        bank.deposit(name, 1000);
    }
    // A generator of Lehmer's: the same draws each time.
    let mut seed: u64 = 48_271;
    let mut draw = |below: u64| {
        seed = seed * 48_271 % 0x7fff_ffff;
        seed % below
    };
    let mut n_refused = 0;
    for _ in 0..2_000 {
        let (from, to) = (names[draw(3) as usize], names[draw(3) as usize]);
        match draw(4) {
            0 => {
                bank.deliver();
            }
            1 => bank.account(from).sleep(),
            _ => n_refused += u32::from(bank.transfer(from, to, draw(900)).is_err()),
        }
        assert_eq!(bank.total(), 3000);
    }
    assert!((1..1_500).contains(&n_refused), "{n_refused} were refused");
}
