//! A bank: an actor for each account, and transfers between them that lose and double nothing.

mod entry;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft::prelude::*;

use crate::entry::{Entry, Kind};

weft::component! {
    /// An account: `deposit`, `balance`, `transfer` and `history`.
    actor "account" = Account;
}

/// The key of an account's state.
const STATE: &str = "account";

/// An account. Amounts are cents.
#[derive(Default, Deserialize, Serialize)]
struct Account {
    balance: u64,
    /// Transfers from this account so far.
    transfers: u64,
    /// Entries of the history so far.
    entries: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deposit {
    amount: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: String,
    amount: u64,
}

/// The other half of a transfer: a message of the account that pays.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    transfer: String,
    from: String,
    amount: u64,
}

#[derive(Serialize)]
struct Balance {
    balance: u64,
}

impl Actor for Account {
    fn wake(_: &str, state: &State) -> Result<Account> {
        match state.get(STATE)? {
            Some(account) => Ok(serde_json::from_slice(&account)?),
            None => Ok(Account::default()),
        }
    }

    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
        match method {
            "deposit" => self.deposit(parse(method, &input)?, cx)?,
            "transfer" => self.transfer(parse(method, &input)?, cx)?,
            "credit" => self.credit(parse(method, &input)?, cx)?,
            "balance" => {}
            "history" => return json(&entry::history(cx.state())?),
            _ => return Err(format!("an account has no method `{method}`").into()),
        }
        let balance = self.balance;
        json(&Balance { balance })
    }
}

impl Account {
    fn deposit(&mut self, deposit: Deposit, cx: &mut Context) -> Result<()> {
        self.balance = sum(self.balance, deposit.amount)?;
        self.record(Kind::Deposit, deposit.amount, cx)
    }

    /// Takes the amount from this account and tells the other one: both are kept, or neither.
    fn transfer(&mut self, transfer: Transfer, cx: &mut Context) -> Result<()> {
        let Transfer { to, amount } = transfer;
        self.balance = difference(self.balance, amount)?;
        self.transfers += 1;
        let transfer = format!("{}/{}", cx.key(), self.transfers);
        let from = cx.key().to_owned();
        let credit = Credit {
            transfer: transfer.clone(),
            from,
            amount,
        };
        cx.tell("account", &to, "credit", json(&credit)?)?;
        self.record(Kind::Sent { transfer, to }, amount, cx)
    }

    fn credit(&mut self, credit: Credit, cx: &mut Context) -> Result<()> {
        let Credit {
            transfer,
            from,
            amount,
        } = credit;
        self.balance = sum(self.balance, amount)?;
        self.record(Kind::Received { transfer, from }, amount, cx)
    }

    /// Writes the account, and the entry of what has just changed it.
    fn record(&mut self, kind: Kind, amount: u64, cx: &mut Context) -> Result<()> {
        self.entries += 1;
        let entry = Entry {
            number: self.entries,
            kind,
            amount,
            balance: self.balance,
        };
        entry::add(&entry, cx.state())?;
        cx.state().put(STATE, json(self)?)
    }
}

fn sum(balance: u64, amount: u64) -> Result<u64> {
    let sum = balance.checked_add(amount);
    sum.ok_or_else(|| Error::new(format!("a balance of {balance} cannot grow by {amount}")))
}

fn difference(balance: u64, amount: u64) -> Result<u64> {
    let difference = balance.checked_sub(amount);
    difference.ok_or_else(|| {
        Error::new(format!(
            "a balance of {balance} does not cover a transfer of {amount}"
        ))
    })
}

fn parse<T: DeserializeOwned>(method: &str, input: &[u8]) -> Result<T> {
    serde_json::from_slice(input)
        .map_err(|error| Error::new(format!("the input of `{method}` is invalid: {error}")))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}
