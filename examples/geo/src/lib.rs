//! Scalar functions of SQL for places on the earth, given in degrees.

weft::component! {
    /// Kilometres between two places, along a great circle.
    scalar "km" = km;
    /// The half of the earth that a place is in: north or south.
    scalar "hemisphere" = hemisphere;
}

/// Radius of a sphere as large as the earth.
const RADIUS_KM: f64 = 6371.0088;

weft::scalar! {
    fn km(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> weft::Result<f64> {
        for lat in [lat1, lat2] {
            if !(-90.0..=90.0).contains(&lat) {
                return Err(format!("the latitude `{lat}` is not between -90 and 90").into());
            }
        }
        let half_chord = haversine(lat2 - lat1)
            + lat1.to_radians().cos() * lat2.to_radians().cos() * haversine(lon2 - lon1);
        Ok(2.0 * RADIUS_KM * half_chord.sqrt().min(1.0).asin())
    }
}

fn haversine(degrees: f64) -> f64 {
    (degrees.to_radians() / 2.0).sin().powi(2)
}

weft::scalar! {
    fn hemisphere(lat: Option<f64>) -> &'static str {
        match lat {
            Some(lat) if lat < 0.0 => "south",
            Some(_) => "north",
            None => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use weft::prelude::*;
    use weft::testing::run_scalar;

    use super::*;

    fn degrees(values: impl Into<Column>) -> (DataType, Column) {
        (DataType::Float64, values.into())
    }

    #[test]
    fn berlin_is_as_far_from_paris_as_maps_say() {
        let km = km(52.52, 13.405, 48.8566, 2.3522).expect("places");
        assert!((km - 877.46).abs() < 0.1, "{km}");
    }

    #[test]
    fn nothing_is_far_from_nowhere() {
        let lats = vec![Some(52.5), None];
        let run = run_scalar::<km>([
            degrees(lats.clone()),
            degrees(vec![13.4, 13.4]),
            degrees(lats),
            degrees(vec![13.4, 13.4]),
        ]);
        assert_eq!(run.expect("places"), ["0", "null"]);
    }

    #[test]
    fn a_place_off_the_earth_is_an_error() {
        let off = km(90.5, 0.0, 0.0, 0.0).expect_err("too far north");
        assert!(off.message().contains("`90.5`"), "{off}");
    }

    #[test]
    fn a_place_that_is_not_known_is_in_no_half() {
        let run = run_scalar::<hemisphere>([degrees(vec![Some(52.5), Some(-33.9), None])]);
        assert_eq!(run.expect("places"), ["north", "south", "unknown"]);
    }
}
