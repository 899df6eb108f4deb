//! Orders: objects and lists within one another. Six values are read, most of them six levels deep.

use std::sync::Arc;

use arrow::{
    array::{Float64Builder, Int64Builder, StringViewBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::json;
use simd_json::{prelude::ValueAsScalar, tape::Object};

use super::{
    super::{
        Contest,
        builders::{Builders, Doubles, builders},
        source,
    },
    Columns, Text, field, measured, millis, object, text, time,
};

const COLUMNS: &str = "id BIGINT, city TEXT PATH '$.order.customer.address.city', lat DOUBLE PATH '$.order.customer.address.geo.point.lat',
  lon DOUBLE PATH '$.order.customer.address.geo.point.lon', eta TIMESTAMP(3) PATH '$.order.shipping.carrier.plan.last.eta',
  track DOUBLE[] PATH '$.order.shipping.carrier.plan.last.track'";
const PLACES: [&[&str]; 6] = [
    &["id"],
    &["order", "customer", "address", "city"],
    &["order", "customer", "address", "geo", "point", "lat"],
    &["order", "customer", "address", "geo", "point", "lon"],
    &["order", "shipping", "carrier", "plan", "last", "eta"],
    &["order", "shipping", "carrier", "plan", "last", "track"],
];

builders!(Orders { id: Int64Builder, city: StringViewBuilder, lat: Float64Builder, lon: Float64Builder, eta: TimestampMillisecondBuilder, track: Doubles });

#[derive(Deserialize)]
pub(super) struct Row<'a> {
    id: i64,
    #[serde(borrow)]
    order: Order<'a>,
}

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    customer: Customer<'a>,
    #[serde(borrow)]
    shipping: Shipping<'a>,
}

#[derive(Deserialize)]
struct Customer<'a> {
    #[serde(borrow)]
    address: Address<'a>,
}

#[derive(Deserialize)]
struct Address<'a> {
    #[serde(borrow)]
    city: Text<'a>,
    geo: Geo,
}

#[derive(Deserialize)]
struct Geo {
    point: Point,
}

#[derive(Deserialize)]
struct Point {
    lat: f64,
    lon: f64,
}

#[derive(Deserialize)]
struct Shipping<'a> {
    #[serde(borrow)]
    carrier: Carrier<'a>,
}

#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    plan: Plan<'a>,
}

#[derive(Deserialize)]
struct Plan<'a> {
    #[serde(borrow)]
    last: Leg<'a>,
}

#[derive(Deserialize)]
struct Leg<'a> {
    #[serde(borrow)]
    eta: Text<'a>,
    track: Vec<f64>,
}

impl Columns for Orders {
    type Row<'a> = Row<'a>;

    fn of_tape<'a>(object: &Object<'_, 'a>) -> Option<Row<'a>> {
        let order = object.get("order")?.as_object()?;
        let address = order.get("customer")?.as_object()?.get("address")?.as_object()?;
        let point = address.get("geo")?.as_object()?.get("point")?.as_object()?;
        let point = Point { lat: point.get("lat")?.cast_f64()?, lon: point.get("lon")?.cast_f64()? };
        let plan = order.get("shipping")?.as_object()?.get("carrier")?.as_object()?.get("plan")?.as_object()?;
        let last = plan.get("last")?.as_object()?;
        let track = last.get("track")?.as_array()?.iter().map(|value| value.cast_f64()).collect::<Option<_>>()?;
        let last = Leg { eta: text(last.get("eta")?)?, track };
        Some(Row {
            id: object.get("id")?.as_i64()?,
            order: Order {
                customer: Customer { address: Address { city: text(address.get("city")?)?, geo: Geo { point } } },
                shipping: Shipping { carrier: Carrier { plan: Plan { last } } },
            },
        })
    }

    fn push(&mut self, row: Row<'_>) -> anyhow::Result<()> {
        let (address, last) = (row.order.customer.address, row.order.shipping.carrier.plan.last);
        self.id.append_value(row.id);
        self.city.append_value(address.city.0);
        self.lat.append_value(address.geo.point.lat);
        self.lon.append_value(address.geo.point.lon);
        self.eta.append_option(millis(Some(last.eta))?);
        self.track.append(&last.track);
        Ok(())
    }
}

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let payloads = (0..count as i64).map(|number| serde_json::to_vec(&order(number, &mut random))).collect::<Result<_, _>>()?;
    let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    let point = object("point", vec![field("lat", DataType::Float64), field("lon", DataType::Float64)]);
    let address = object("address", vec![field("city", DataType::Utf8View), object("geo", vec![point])]);
    let last = object("last", vec![field("eta", DataType::Timestamp(TimeUnit::Millisecond, None)), field("track", numbers)]);
    let shipping = object("shipping", vec![object("carrier", vec![object("plan", vec![last])])]);
    let order = object("order", vec![object("customer", vec![address]), shipping]);
    let schema = Schema::new(vec![field("id", DataType::Int64), order]);
    Ok(super::contest::<Orders>("nested", source(COLUMNS, "format = 'json'")?, payloads, schema, &PLACES))
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
            "shipping": { "carrier": { "name": "Some Carrier", "plan": { "hubs": hubs, "last": { "eta": time(number * 61).0, "track": track } } } },
        },
    })
}
