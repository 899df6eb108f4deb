//! Orders: objects and lists within one another. Six values are read, most of them six levels deep.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    super::{
        Contest,
        record::{Part, Record, Text, Time, record},
        source,
    },
    measured, time,
};

record!(Row<'a> { id: i64, order: Order<'a> });
record!(Order<'a> { customer: Customer<'a>, shipping: Shipping<'a> });
record!(Customer<'a> { address: Address<'a> });
record!(Address<'a> { city: Text<'a>, geo: Geo });
record!(Geo { point: Point });
record!(Point { lat: f64, lon: f64 });
record!(Shipping<'a> { carrier: Carrier<'a> });
record!(Carrier<'a> { plan: Plan<'a> });
record!(Plan<'a> { last: Leg<'a> });
record!(Leg<'a> { eta: Time<'a>, track: Vec<f64> });

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let payloads = (0..count as i64).map(|number| serde_json::to_vec(&order(number, &mut random))).collect::<Result<_, _>>()?;
    super::contest::<Row<'_>>("nested", source(&Row::columns(), "format = 'json'")?, payloads)
}

fn order(number: i64, random: &mut ChaCha8Rng) -> serde_json::Value {
    let line = |random: &mut ChaCha8Rng| {
        json!({
            "sku": format!("sku-{:06}", random.random_range(0..1_000_000)), "quantity": random.random_range(1..9),
            "price": { "amount": f64::from(random.random_range(100..100_000)) / 100.0, "currency": "EUR",
                       "taxes": [{ "kind": "vat", "rate": 0.21, "basis": { "code": "ES", "reduced": false } }] },
        })
    };
    let lines: Vec<_> = (0..random.random_range(1..5)).map(|_| line(random)).collect();
    let hub = |random: &mut ChaCha8Rng| {
        let code = ["VLC", "RTM", "GDN"][random.random_range(0..3)];
        json!({ "hub": { "code": code, "gates": [random.random_range(1..9), 12] } })
    };
    let hubs: Vec<_> = (0..random.random_range(1..4)).map(|_| hub(random)).collect();
    let city = ["València", "Leiden", "Gdańsk", "Graz"][random.random_range(0..4)];
    let track: Vec<f64> = (0..random.random_range(2..8)).map(|_| measured(random, 180)).collect();
    json!({
        "id": number,
        "order": {
            "customer": {
                "name": format!("Customer the {}th", random.random_range(0..5000)), "tags": ["regular", "newsletter"],
                "address": {
                    "street": "Carrer de la Pau 12", "city": city,
                    "geo": { "point": { "lat": measured(random, 90), "lon": measured(random, 180) }, "source": "gps" },
                },
            },
            "lines": lines,
            "shipping": { "carrier": { "name": "Some Carrier", "plan": { "hubs": hubs, "last": { "eta": time(number * 61), "track": track } } } },
        },
    })
}
