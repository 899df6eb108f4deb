//! What an application in Rust does with Tidegate over ADBC: `adbc-client LIBRARY URL USER PASSWORD`, where LIBRARY is the Flight SQL driver,
//! for example that of the Python package (`adbc_driver_flightsql._driver_path()`).

use std::{error::Error, sync::Arc};

use adbc_core::{
    Connection, Database, Driver, Optionable, Statement,
    options::{AdbcVersion, IngestMode, OptionDatabase, OptionStatement},
};
use adbc_driver_manager::ManagedDriver;
use arrow_array::{Array, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};

fn main() -> Result<(), Box<dyn Error>> {
    let [_, library, url, user, password] = <[String; 5]>::try_from(std::env::args().collect::<Vec<_>>()).map_err(|_| "LIBRARY URL USER PASSWORD")?;
    let mut driver = ManagedDriver::load_dynamic_from_filename(library, None, AdbcVersion::V110)?;
    let options = [
        (OptionDatabase::Uri, url.as_str().into()),
        (OptionDatabase::Username, user.as_str().into()),
        (OptionDatabase::Password, password.as_str().into()),
    ];
    let database = driver.new_database_with_opts(options)?;
    let mut connection = database.new_connection()?;

    // A query.
    let mut statement = connection.new_statement()?;
    statement.set_sql_query("SELECT team, count(*) AS n FROM teams GROUP BY team ORDER BY team")?;
    for batch in statement.execute()? {
        let batch = batch?;
        let (teams, counts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            println!("{}: {}", teams.value(row), counts.value(row));
        }
    }

    // One that is prepared, with parameters.
    let mut statement = connection.new_statement()?;
    statement.set_sql_query("SELECT count(*) FROM teams WHERE team = ? AND points > ?")?;
    statement.prepare()?;
    statement.bind(RecordBatch::try_from_iter([
        ("1", Arc::new(StringArray::from(vec!["Away"])) as Arc<dyn Array>),
        ("2", Arc::new(Int64Array::from(vec![1]))),
    ])?)?;
    let counted = statement.execute()?.next().ok_or("no batch")??;
    println!("prepared: {}", counted.column(0).as_primitive::<Int64Type>().value(0));

    // Rows of one's own, into a table that is made for them.
    let schema = Schema::new(vec![Field::new("player", DataType::Utf8, false), Field::new("goals", DataType::Int64, true)]);
    let goals = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(Int64Array::from(vec![Some(3), None]))])?;
    let mut statement = connection.new_statement()?;
    statement.set_option(OptionStatement::TargetTable, "goals".into())?;
    statement.set_option(OptionStatement::IngestMode, IngestMode::CreateAppend.into())?;
    statement.bind(goals)?;
    println!("uploaded: {}", statement.execute_update()?.unwrap_or(-1));

    // A subscription: batches come as there is something new, until it is cancelled.
    let mut statement = connection.new_statement()?;
    statement.set_sql_query("SUBSCRIBE sums")?;
    let (mut seen, mut batches) = (0, statement.execute()?);
    while seen < 2 {
        seen += batches.next().ok_or("a subscription does not end")??.num_rows();
    }
    println!("subscribed: {seen}");
    statement.get_cancel_handle().try_cancel()?;
    drop(batches);
    Ok(())
}
