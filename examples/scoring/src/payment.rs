use crate::agent::Agent;

/// A place on earth, in degrees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
}

/// A payment: where the card was used last and where it is used now, dollars, and the hour of the day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payment {
    pub(crate) agent: Agent,
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) amount: f64,
    pub(crate) hour: i32,
}

impl Payment {
    /// How suspicious the payment is, and the kilometres that it is made of.
    pub(crate) fn score(&self) -> (i64, f64) {
        let km = distance_km(self.from, self.to);
        let score = of_distance(km)
            + of_amount(self.amount)
            + of_agent(&self.agent)
            + of_both(self.amount, &self.agent);
        let at_night = self.hour < 6;
        (if at_night { score * 3 / 2 } else { score }, km)
    }
}

fn of_distance(km: f64) -> i64 {
    if km > 5000.0 {
        40
    } else if km > 500.0 {
        20
    } else if km > 50.0 {
        5
    } else {
        0
    }
}

fn of_amount(amount: f64) -> i64 {
    if amount > 900.0 {
        30
    } else if amount > 250.0 {
        10
    } else {
        0
    }
}

fn of_agent(agent: &Agent) -> i64 {
    match agent.family {
        "Bot" => 50,
        "Other" => 15,
        _ if agent.version < 90 => 12,
        _ => 0,
    }
}

fn of_both(amount: f64, agent: &Agent) -> i64 {
    if amount > 500.0 && matches!(agent.system, "Linux" | "Other") {
        7
    } else {
        0
    }
}

/// The way along the surface, by the haversine formula, on a ball of 6371 km.
pub(crate) fn distance_km(from: Place, to: Place) -> f64 {
    let (from_latitude, to_latitude) = (from.latitude.to_radians(), to.latitude.to_radians());
    let north = ((to_latitude - from_latitude) / 2.0).sin();
    let east = ((to.longitude - from.longitude).to_radians() / 2.0).sin();
    let a = north * north + from_latitude.cos() * to_latitude.cos() * (east * east);
    12_742.0 * a.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARIS: Place = Place {
        latitude: 48.8566,
        longitude: 2.3522,
    };
    const AGENT: Agent = Agent {
        family: "Chrome",
        version: 120,
        system: "Windows",
    };

    fn place(latitude: f64, longitude: f64) -> Place {
        Place {
            latitude,
            longitude,
        }
    }

    fn check(change: impl FnOnce(&mut Payment), expected: i64) {
        let mut payment = Payment {
            agent: AGENT,
            from: PARIS,
            to: PARIS,
            amount: 10.0,
            hour: 12,
        };
        change(&mut payment);
        assert_eq!(payment.score().0, expected, "{payment:?}");
    }

    #[test]
    fn distances_are_along_the_surface() {
        let around = |km: f64, expected: f64| assert!((km - expected).abs() < 0.5, "{km}");
        around(distance_km(PARIS, PARIS), 0.0);
        around(distance_km(PARIS, place(51.5074, -0.1278)), 343.6);
        around(distance_km(place(0.0, -90.0), place(0.0, 90.0)), 20015.1);
        around(distance_km(place(0.0, 179.5), place(0.0, -179.5)), 111.2);
    }

    #[test]
    fn each_part_counts() {
        check(|_| (), 0);
        check(|payment| payment.to = place(48.0, 2.3522), 5);
        check(|payment| payment.to = place(40.0, 2.3522), 20);
        check(|payment| payment.to = place(-40.0, 2.3522), 40);
        check(|payment| payment.amount = 250.0, 0);
        check(|payment| payment.amount = 250.01, 10);
        check(|payment| payment.amount = 900.01, 30);
        check(|payment| payment.agent.version = 89, 12);
        check(|payment| payment.agent.family = "Other", 15);
        check(|payment| payment.agent.family = "Bot", 50);
        check(|payment| payment.agent.system = "Linux", 0);
    }

    #[test]
    fn parts_go_together() {
        let at = |hour| {
            move |payment: &mut Payment| {
                payment.agent.system = "Linux";
                payment.amount = 500.01;
                payment.hour = hour;
            }
        };
        check(at(12), 17);
        check(at(6), 17);
        check(at(5), 25);
    }
}
