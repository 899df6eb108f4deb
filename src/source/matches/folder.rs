//! A folder of StatsBomb's open data, as it is downloaded: `events/<match>.json`, `three-sixty/<match>.json` and match lists
//! `matches/<competition>/<season>.json`, each plain or as `.gz`. Turns one match's files into its events.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::event::{Frame, MatchEvent, Period, Stamp, kick_off_from_list, parse_timestamp};
use super::raw::{Parts, write_compact};
use crate::{Error, Result};

/// The files of one match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchFiles {
    /// Its events.
    pub events: PathBuf,
    /// Its 360 data, if there is any.
    pub frames: Option<PathBuf>,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Folder {
    /// The matches that have events, by match id.
    pub matches: BTreeMap<i64, MatchFiles>,
    /// Kick-offs that the match lists know, in milliseconds since 1970.
    pub kick_offs: HashMap<i64, i64>,
}

impl Folder {
    /// Looks a folder through. Reads the match lists, but no events yet.
    pub fn open(path: &Path) -> Result<Self> {
        let events = files_by_match(&path.join("events"))?
            .ok_or_else(|| Error::Invalid(format!("{} has no folder 'events'; give the folder of StatsBomb's open data that holds it", path.display())))?;
        if events.is_empty() {
            return Err(Error::Invalid(format!("{} holds no match; there should be files like 7525.json or 7525.json.gz", path.join("events").display())));
        }
        let mut frames = files_by_match(&path.join("three-sixty"))?.unwrap_or_default();
        let matches = events.into_iter().map(|(id, events)| (id, MatchFiles { events, frames: frames.remove(&id) })).collect();
        Ok(Self { matches, kick_offs: kick_offs(&path.join("matches"))? })
    }
}

/// The JSON files of a folder by the match id that names them; `None` if there is no such folder.
fn files_by_match(folder: &Path) -> Result<Option<BTreeMap<i64, PathBuf>>> {
    let Some(files) = json_files(folder)? else { return Ok(None) };
    let mut by_match = BTreeMap::new();
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let id = name.split('.').next().and_then(|n| n.parse().ok()).filter(|id| *id > 0);
        let id = id.ok_or_else(|| Error::Invalid(format!("{} is not named by a match id, like 7525.json; move it elsewhere", file.display())))?;
        // Sorted by name: of 7525.json and 7525.json.gz the plain one comes first and stays.
        by_match.entry(id).or_insert(file);
    }
    Ok(Some(by_match))
}

/// The `.json` and `.json.gz` files right in a folder, by name; `None` if there is no such folder.
fn json_files(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let is_json = |path: &PathBuf| path.to_str().is_some_and(|p| p.ends_with(".json") || p.ends_with(".json.gz"));
    Ok(Some(entries(folder)?.into_iter().filter(is_json).collect()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e: std::io::Error| Error::External(format!("can't read the folder {}: {e}", folder.display()));
    let mut paths = fs::read_dir(folder).map_err(unreadable)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn kick_offs(lists: &Path) -> Result<HashMap<i64, i64>> {
    #[derive(Deserialize)]
    struct Listed {
        match_id: i64,
        match_date: Option<String>,
        kick_off: Option<String>,
    }
    let mut kick_offs = HashMap::new();
    let competitions = if lists.is_dir() { entries(lists)? } else { vec![] };
    for competition in competitions.iter().filter(|p| p.is_dir()) {
        for list in json_files(competition)?.unwrap_or_default() {
            for listed in parse::<Vec<Listed>>(&list, &read(&list)?)? {
                // A match without a date or a time kicks off when an unlisted one does.
                let (Some(date), Some(time)) = (listed.match_date, listed.kick_off) else { continue };
                let kick_off = kick_off_from_list(&date, &time).ok_or_else(|| {
                    Error::Invalid(format!("{}: match {} kicks off at '{date}' '{time}', which is no date and time", list.display(), listed.match_id))
                })?;
                kick_offs.insert(listed.match_id, kick_off);
            }
        }
    }
    Ok(kick_offs)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| Error::External(format!("can't read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(unreadable)?;
    if path.extension().is_some_and(|e| e == "gz") {
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        file.read_to_end(&mut bytes).map_err(unreadable)?;
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| Error::Invalid(format!("{} is not the JSON that was expected: {e}", path.display())))
}

/// What the replay itself needs to know of an event; all else stays text.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    index: i64,
    period: i64,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Named<'a>,
    #[serde(borrow)]
    team: Named<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Reads one match: its events in the order of `index`, stamped.
pub fn read_match(files: &MatchFiles, match_id: i64, kick_off_ms: i64) -> Result<Vec<MatchEvent>> {
    let wrong = |what: String| Error::Invalid(format!("{}: {what}", files.events.display()));
    let text = read(&files.events)?;
    let mut events = Vec::new();
    for (number, element) in elements(&files.events, &text)?.enumerate() {
        let head: Head<'_> = serde_json::from_slice(element.value).map_err(|e| wrong(format!("event {} is not one of StatsBomb's: {e}", number + 1)))?;
        events.push((head, element.value));
    }
    events.sort_by_key(|(head, _)| head.index);

    let home = events.iter().find(|(head, _)| head.kind.name == "Starting XI").map(|(head, _)| head.team.name.as_ref());
    let home = home.ok_or_else(|| wrong("no event is a 'Starting XI', so nothing tells which team is at home".into()))?;
    let away = events.iter().map(|(head, _)| head.team.name.as_ref()).find(|team| *team != home);
    let away = away.ok_or_else(|| wrong(format!("every event is of '{home}', so nothing tells the other team")))?;
    let stamp = Stamp::new(match_id, home, away, kick_off_ms);

    let frames_text = files.frames.as_deref().map(read).transpose()?;
    let frames = match (&files.frames, &frames_text) {
        (Some(path), Some(text)) => read_frames(path, text)?,
        _ => HashMap::new(),
    };

    let count = events.len();
    let stamped = events.iter().enumerate().map(|(i, (head, text))| {
        let period =
            Period::new(head.period).ok_or_else(|| wrong(format!("the event with index {} is in period {}; there are 1 to 5", head.index, head.period)))?;
        let into_period = parse_timestamp(&head.timestamp)
            .ok_or_else(|| wrong(format!("the event with index {} has the timestamp '{}'; it should look like 00:12:34.567", head.index, head.timestamp)))?;
        let event_time_ms = stamp.event_time_ms(period, into_period);
        let mut payload = Vec::with_capacity(text.len() + 192);
        write_compact(&mut payload, text);
        payload.pop();
        stamp.finish(&mut payload, event_time_ms, frames.get(head.id.as_ref()).map(OwnedFrame::borrow));
        Ok(MatchEvent { match_id, event_time_ms, last: i + 1 == count, payload })
    });
    stamped.collect()
}

/// The elements of a file that holds one array.
fn elements<'a>(path: &Path, text: &'a [u8]) -> Result<Parts<'a>> {
    // The whole text is judged first, so that cutting it afterwards need not doubt it.
    parse::<IgnoredAny>(path, text)?;
    Parts::of_array(text).ok_or_else(|| Error::Invalid(format!("{} should hold one JSON array", path.display())))
}

struct OwnedFrame {
    visible_area: Option<Vec<u8>>,
    freeze_frame: Vec<u8>,
}

impl OwnedFrame {
    fn borrow(&self) -> Frame<'_> {
        Frame { visible_area: self.visible_area.as_deref(), freeze_frame: &self.freeze_frame }
    }
}

/// The 360 data of a match by event id.
fn read_frames(path: &Path, text: &[u8]) -> Result<HashMap<String, OwnedFrame>> {
    let mut frames = HashMap::new();
    for (number, element) in elements(path, text)?.enumerate() {
        let (mut id, mut visible_area, mut freeze_frame) = (None, None, None);
        for member in Parts::of_object(element.value).into_iter().flatten() {
            let compact = || {
                let mut out = Vec::with_capacity(member.value.len());
                write_compact(&mut out, member.value);
                out
            };
            match member.name {
                b"event_uuid" => id = serde_json::from_slice::<String>(member.value).ok(),
                b"visible_area" => visible_area = Some(compact()),
                b"freeze_frame" => freeze_frame = Some(compact()),
                _ => {}
            }
        }
        let (Some(id), Some(freeze_frame)) = (id, freeze_frame) else {
            return Err(Error::Invalid(format!("{}: element {} should have a text 'event_uuid' and a 'freeze_frame'", path.display(), number + 1)));
        };
        frames.insert(id, OwnedFrame { visible_area, freeze_frame });
    }
    Ok(frames)
}
