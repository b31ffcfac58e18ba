//! The server as its clients see it: what it answers, what it refuses, who waits, who leaves, and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Folder, refuse, stoppable, succeed, workspace};

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
    /// Kept, so that it can write.
    out: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn trained(folder: &Folder) -> String {
    succeed(&["train", &folder.config(), "--training.steps", "30", "--training.seq_len", "64"]);
    folder.path("run/checkpoint/step-30").display().to_string()
}

impl Server {
    fn start(step: &str, args: &[&str]) -> Server {
        let mut command = stoppable();
        command.args(["serve", step, "--port", "0", "--device", "cpu", "--name", "tiny"]).args(args);
        command.current_dir(workspace()).env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::piped());
        let mut child = command.spawn().expect("linc runs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        Server { child, address: address.unwrap_or_else(|| panic!("{line:?}")).to_owned(), out }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a limit");
        stream
    }

    fn send(&self, path: &str, body: &str, header: &str) -> TcpStream {
        let mut stream = self.connect();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost:1\r\ncontent-type: application/json\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // A server that refuses a body may not read it.
        let _ = stream.write_all(body.as_bytes());
        stream
    }

    fn ask(&self, path: &str, body: &str) -> (u16, String) {
        answer(self.send(path, body, ""))
    }

    /// The answer to a request that is granted.
    fn granted(&self, body: &Value) -> Value {
        let (status, text) = self.ask("/v1/completions", &body.to_string());
        assert_eq!(status, 200, "{body}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn count(&self, name: &str) -> f64 {
        let (_, text) = self.ask("/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("linc_{name} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = vec![];
    // Refused bodies may end with a reset behind the answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        whole.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    (status, whole)
}

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("choices");
    choices.iter().map(|choice| choice["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn completions_are_those_of_generate_and_scores_those_of_the_model() {
    let folder = Folder::new("serve_answers");
    let step = trained(&folder);
    let said = succeed(&["serve", &step, "--self-test", "12", "--device", "cpu"]);
    assert!(said.contains("to the bit") && said.contains("16 continuations"), "{said}");
    // Less than the model was trained with.
    let said = succeed(&["serve", &step, "--self-test", "5", "--context", "20", "--device", "cpu"]);
    assert!(said.contains("to the bit"), "{said}");
    let server = Server::start(&step, &["--slots", "3"]);
    let prompts = ["the quick", "a", "lazy dog the", "fox jumps"];
    let alone = |prompt: &str, args: &[&str]| {
        let generate = ["generate", &step, "--device", "cpu", "--tokens", "10", "--prompt", prompt];
        let text = succeed(&[&generate[..], args].concat());
        text.strip_prefix(prompt).and_then(|text| text.strip_suffix('\n')).expect("a text").to_owned()
    };
    let greedy: Vec<String> = prompts.iter().map(|prompt| alone(prompt, &["--greedy"])).collect();
    let asked = json!({"prompt": prompts, "max_tokens": 10, "temperature": 0});
    let found = server.granted(&asked);
    assert_eq!(texts(&found), greedy);
    assert_eq!((&found["model"], &found["object"]), (&"tiny".into(), &"text_completion".into()));
    assert_eq!(found["usage"]["completion_tokens"], 40);
    let drawn =
        json!({"prompt": "the quick", "max_tokens": 10, "temperature": 0.8, "top_k": 40, "seed": 4, "n": 2});
    let seeds = ["4", "5"].map(|seed| alone("the quick", &["--seed", seed]));
    assert_eq!(texts(&server.granted(&drawn)), seeds);

    // With a seed a prompt in a list gets what it gets alone; without one no two choices are the same draw.
    let drawn = json!({"prompt": ["a", "a", "a"], "max_tokens": 20, "seed": 4});
    let with_seed = texts(&server.granted(&drawn));
    assert!(with_seed.iter().all(|text| *text == with_seed[0]), "{with_seed:?}");
    let mut drawn = texts(&server.granted(&json!({"prompt": ["a", "a", "a"], "max_tokens": 20, "n": 2})));
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 6, "{drawn:?}");

    // Events give the same text in pieces.
    let streamed = json!({"prompt": prompts, "max_tokens": 10, "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": 1, "echo": true});
    let (status, events) = server.ask("/v1/completions", &streamed.to_string());
    assert_eq!(status, 200);
    let mut whole = vec![String::new(); prompts.len()];
    let mut events: Vec<&str> =
        events.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    let usage: Value = serde_json::from_str(events.pop().expect("an event")).expect("JSON");
    assert_eq!(usage["usage"]["completion_tokens"], 40);
    let mut tokens = 0;
    for event in events {
        let event: Value = serde_json::from_str(event).expect("JSON");
        for choice in event["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index") as usize;
            whole[index].push_str(choice["text"].as_str().expect("a text"));
            tokens += choice["logprobs"]["tokens"].as_array().expect("tokens").len();
        }
    }
    let expected: Vec<String> = prompts.iter().zip(&greedy).map(|(a, b)| format!("{a}{b}")).collect();
    assert_eq!(whole, expected);
    // The byte tokenizer puts a token before each text.
    assert_eq!(tokens, prompts.iter().map(|prompt| prompt.len() + 1 + 10).sum::<usize>());

    // Ragged token ids with their scores: one for each token, and one for what follows.
    let ids = json!({"prompt": [[5, 6, 7], [104], [116, 104, 101, 32]], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true});
    for (choice, length) in server.granted(&ids)["choices"].as_array().expect("choices").iter().zip([3, 1, 4])
    {
        let list = |name: &str| choice["logprobs"][name].as_array().expect("a list").clone();
        let (log_probs, tops, offsets) = (list("token_logprobs"), list("top_logprobs"), list("text_offset"));
        assert_eq!([log_probs.len(), tops.len(), offsets.len(), list("tokens").len()], [length + 1; 4]);
        assert!(log_probs[0].is_null() && tops[0].is_null());
        for (log_prob, top) in log_probs.iter().zip(&tops).skip(1) {
            let most =
                top.as_object().expect("a map").values().filter_map(Value::as_f64).fold(f64::MIN, f64::max);
            assert!(log_prob.as_f64().is_some_and(|x| x <= most && most < 0.0), "{choice}");
        }
        assert_eq!(
            log_probs[length],
            tops[length].as_object().expect("a map").values().next().expect("one").clone()
        );
    }
    // The token that starts a document is no part of the text: what follows it begins where the text does.
    let echoed = json!({"prompt": "ab", "max_tokens": 0, "temperature": 0, "logprobs": 0, "echo": true});
    let echoed = &server.granted(&echoed)["choices"][0];
    assert_eq!((&echoed["text"], &echoed["logprobs"]["text_offset"]), (&json!("ab"), &json!([0, 0, 1])));
    // A prompt of one token more than the context has room for is scored; nothing follows it.
    let long: Vec<u32> = (0..65).map(|i| 97 + i % 20).collect();
    let scored = server
        .granted(&json!({"prompt": long, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true}));
    let log_probs = scored["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list");
    assert!(log_probs.len() == 66 && log_probs[65].is_null() && log_probs[64].is_number());
    let stop = greedy[0].chars().find(char::is_ascii_graphic).expect("a letter").to_string();
    let stopped = json!({"prompt": "the quick", "max_tokens": 10, "temperature": 0, "stop": [&stop]});
    let stopped = server.granted(&stopped);
    assert_eq!(texts(&stopped)[0], greedy[0].split(&stop).next().expect("a part"));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    // A text that may be the start of a stop is held back; where its tokens are does not depend on that. A byte is a token.
    let last: String = greedy[0].chars().skip(1).chain("\u{1}".chars()).collect();
    let held = json!({"prompt": "the quick", "max_tokens": 10, "temperature": 0, "stop": [last], "logprobs": 0, "echo": false});
    let held = &server.granted(&held)["choices"][0];
    assert_eq!(held["text"], greedy[0].as_str());
    let list = |name: &str| held["logprobs"][name].as_array().expect("a list").clone();
    let mut letters = 0;
    for (token, offset) in list("tokens").iter().zip(list("text_offset")) {
        let at = offset.as_u64().expect("a number") as usize;
        // Bytes of incomplete characters have none of their own.
        if let Some(token) = token.as_str().filter(|token| token.is_ascii()) {
            assert_eq!(greedy[0].chars().nth(at).map(String::from).as_deref(), Some(token), "{held}");
            letters += 1;
        }
    }
    assert!(letters > 2, "{held}");
    let (_, text) = server.ask("/tokenize", r#"{"prompt": "ab"}"#);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["tokens"], json!([0, 97, 98]));
    let (_, text) = server.ask("/detokenize", r#"{"tokens": [97, 98]}"#);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["prompt"], "ab");
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let folder = Folder::new("serve_refusals");
    let step = trained(&folder);
    let key = folder.file("key", "secret-token\n");
    let server = Server::start(&step, &["--max-body", "30KB", "--api-key-file", &key]);
    let with = "authorization: Bearer secret-token\r\n";
    let lower = "authorization: bearer secret-token\r\n";
    assert_eq!(answer(server.send("/v1/completions", r#"{"prompt": "a", "max_tokens": 1}"#, lower)).0, 200);
    for header in [
        "",
        "authorization: Basic secret-token\r\n",
        "authorization: Bearer secret-tokem\r\n",
        "authorization: Bearer secret-token2\r\n",
    ] {
        let (status, text) = answer(server.send("/v1/completions", r#"{"prompt": "a"}"#, header));
        assert!(status == 401 && text.contains("Bearer"), "{header}: {status} {text}");
    }
    assert_eq!(server.ask("/health", "").0, 200, "who looks after it needs no token");
    let long = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(100));
    let stop = format!(r#"{{"prompt": "a", "stop": ["b", "{}"]}}"#, "a".repeat(1025));
    let tokens = format!(r#"{{"prompt": [{}1]}}"#, "1,".repeat(9_999));
    let large = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(40_000));
    for (path, body, status, words) in [
        (
            "/v1/completions",
            r#"{"prompt": "a", "max_token": 3}"#,
            400,
            &["max_token", "did you mean max_tokens?"][..],
        ),
        ("/v1/completions", r#"{"prompt": "a", "logit_bias": {"5": 1}}"#, 400, &["logit_bias"]),
        (
            "/v1/completions",
            r#"{"prompt": "a", "presence_penalty": 0.5}"#,
            400,
            &["presence_penalty", "repetition_penalty"],
        ),
        ("/v1/completions", r#"{"prompt": "a", "best_of": 3}"#, 400, &["best_of"]),
        ("/v1/completions", r#"{"prompt": "a", "temperature": -1}"#, 400, &["temperature is -1"]),
        (
            "/v1/completions",
            r#"{"prompt": "a", "temperature": "hot"}"#,
            400,
            &["temperature is \\\"hot\\\"", "a number"],
        ),
        ("/v1/completions", r#"{"prompt": "a", "n": 0}"#, 400, &["n is 0", "from 1"]),
        ("/v1/completions", r#"{"prompt": "a", "stop": ""}"#, 400, &["stop"]),
        ("/v1/completions", &stop, 400, &["stop", "1 to 1024 bytes"]),
        ("/v1/completions", r#"{"prompt": "a", "repetition_penalty": 1e-300}"#, 400, &["repetition_penalty"]),
        ("/v1/completions", r#"{"prompt": "a", "stream_options": {}}"#, 400, &["stream_options"]),
        ("/v1/completions", r#"{"prompt": "a", "echo": true, "logprobs": 3}"#, 400, &["logprobs", "0 or 1"]),
        ("/v1/completions", r#"{"prompt": "a", "max_tokens": 0}"#, 400, &["max_tokens is 0"]),
        ("/v1/completions", r#"{"prompt": "a", "model": "other"}"#, 404, &["other", "tiny"]),
        ("/v1/completions", r#"{"max_tokens": 3}"#, 400, &["no prompt"]),
        ("/v1/completions", r#"{"prompt": []}"#, 400, &["empty"]),
        ("/v1/completions", r#"{"prompt": [[1], []]}"#, 400, &["prompt 1", "no token"]),
        ("/v1/completions", r#"{"prompt": [1, "a"]}"#, 400, &["prompt"]),
        ("/v1/completions", r#"{"prompt": [300]}"#, 400, &["token 300", "0 to 255"]),
        ("/v1/completions", &long, 400, &["101 tokens", "the context of 64"]),
        ("/v1/completions", &tokens, 400, &["10000 tokens", "the context of 64"]),
        ("/v1/completions", r#"{"prompt": "a""#, 400, &["no JSON"]),
        ("/v1/completions", "[1]", 400, &["expected a JSON object"]),
        ("/v1/completions", &large, 413, &["more than 30000 bytes"]),
        ("/v1/chat/completions", "{}", 404, &["/v1/completions"]),
        ("/v1/models", "{}", 405, &["POST"]),
        ("/detokenize", r#"{"tokens": [999]}"#, 400, &["999"]),
        ("/tokenize", r#"{"prompt": 3}"#, 400, &["prompt is 3"]),
    ] {
        let (found, text) = answer(server.send(path, body, with));
        let shown = &body[..body.len().min(80)];
        assert_eq!(found, status, "{path} {shown}: {text}");
        for word in words {
            assert!(text.contains(word), "{path} {shown} does not say {word:?}: {text}");
        }
        assert!(
            serde_json::from_str::<Value>(&text).is_ok_and(|json| json["error"]["message"].is_string()),
            "{text}"
        );
    }
    // What is no text, and what is no HTTP.
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{with}content-length: 4\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(b"\"\xff\xfe\"").expect("sent");
    assert_eq!(answer(stream).0, 400);
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01 what\r\n\r\n").expect("sent");
    let _ = stream.read_to_end(&mut vec![]);
    let (status, _) = answer(server.send("/v1/completions", r#"{"prompt": "a"}"#, with));
    assert_eq!(status, 200, "it goes on");

    for (args, words) in [
        (&["--name", ""][..], &["--name is empty"][..]),
        (&["--host", "nowhere"][..], &["--host is \"nowhere\"", "127.0.0.1"][..]),
        (&["--host", "192.0.2.1"], &["cannot listen on 192.0.2.1", "no such address"]),
        (&["--port", server.address.rsplit(':').next().expect("a port")], &["another program listens there"]),
        (&["--api-key-file", "none"], &["none", "no such file"]),
        (&["--slots", "1000000"], &["1000000 sequences at once"]),
        (&["--context", "99999999999"], &["expected 1 to"]),
    ] {
        refuse(&[&["serve", &step, "--device", "cpu"][..], args].concat(), words);
    }
    for (option, words) in [
        ("--queue", "from 1 to 65536"),
        ("--connections", "from 1 to 65536"),
        ("--timeout", "from 1 to 604800"),
        ("--self-test", "from 1 to 65536"),
    ] {
        for number in ["0", "18446744073709551615", "9223372036854775807"] {
            refuse(&["serve", &step, option, number], &[option, number, words]);
        }
    }
    refuse(&["serve", "none"], &["none is not a checkpoint"]);
}

#[test]
fn pages_do_not_ask_slow_bodies_do_not_wait_and_small_requests_pass_large_ones() {
    let folder = Folder::new("serve_strangers");
    let step = trained(&folder);
    let server = Server::start(&step, &["--slots", "1", "--timeout", "3"]);
    let body = r#"{"prompt": "a", "max_tokens": 1}"#;
    let address = server.address.as_str();
    let json = "application/json; charset=utf-8";
    for (host, kind, status) in [
        (address, json, 200),
        ("LOCALHOST", json, 200),
        ("[::1]:80", json, 200),
        ("rebound.example", json, 403),
        ("localhost.example:8000", json, 403),
        ("192.0.2.7", json, 403),
        (address, "text/plain", 415),
        (address, "application/x-www-form-urlencoded", 415),
    ] {
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let (found, text) = answer(stream);
        assert_eq!(found, status, "{host} {kind}: {text}");
    }

    // A body that does not come has no more time than an answer.
    let begun = Instant::now();
    let mut stream = server.connect();
    let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(answer(stream).0, 408);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(server);

    let server = Server::start(&step, &["--slots", "1"]);
    // Of many continuations, each in its turn, and of many prompts that are scored.
    let many = json!({"prompt": "a", "n": 256, "max_tokens": 60, "temperature": 0}).to_string();
    let large = server.send("/v1/completions", &many, "");
    server.until("the large one runs", |server| server.count("sequences_running") == 1.0);
    assert_eq!(server.ask("/v1/completions", body).0, 200);
    let written = server.count("generated_tokens_total");
    assert!(written < 256.0 * 60.0 / 2.0, "{written}");
    drop(large);
}

#[test]
fn who_leaves_frees_a_slot_a_full_queue_says_so_and_what_runs_is_finished() {
    let folder = Folder::new("serve_load");
    let step = trained(&folder);
    let mut server = Server::start(&step, &["--slots", "1", "--queue", "1", "--context", "4000"]);
    let long = json!({"prompt": "a", "max_tokens": 3900, "temperature": 0}).to_string();
    // Nobody waits for their ends, which are too far off to come within the test on any machine.
    let endless = json!({"prompt": "a", "max_tokens": 3900, "temperature": 0, "n": 256}).to_string();
    let leaver = server.send("/v1/completions", &endless, "");
    server.until("the first has the slot", |server| server.count("sequences_running") == 1.0);
    // One more may be open, one more waits, and at least one of three is refused.
    let refused = |server: &Server| {
        let (_, text) = server.ask("/metrics", "");
        let line = text.lines().find(|line| line.contains(r#"path="/v1/completions",status="429""#));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let waiting: Vec<TcpStream> = (0..3).map(|_| server.send("/v1/completions", &endless, "")).collect();
    server.until("the queue is full, and all four have their place or their refusal", |server| {
        let refused = refused(server);
        refused >= 1.0 && refused + server.count("jobs_total") + server.count("requests_waiting") >= 4.0
    });
    leaver.shutdown(Shutdown::Both).expect("gone");
    drop(leaver);
    drop(waiting);
    // Each that was not refused is counted when the model lets go of it, one after the other.
    server
        .until("all who left are counted", |server| server.count("jobs_left_total") + refused(server) == 4.0);
    server.until("their slots and places are free", |server| {
        server.count("sequences_running") == 0.0 && server.count("requests_waiting") == 0.0
    });
    assert!(server.count("generated_tokens_total") < 256.0 * 3900.0);

    // What runs when it is to end is finished.
    let last = server.send("/v1/completions", &long, "");
    server.until("it runs", |server| server.count("sequences_running") == 1.0);
    let id = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    let (status, text) = answer(last);
    assert!(status == 200 && text.contains("\"completion_tokens\":3900"), "{text}");
    assert_eq!(server.child.wait().expect("ends").code(), Some(0));
    let mut rest = String::new();
    server.out.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(rest, "Ended.\n");
}

#[test]
fn prompts_that_are_scored_take_turns_with_those_of_others() {
    let folder = Folder::new("serve_turns");
    let step = trained(&folder);
    let server = Server::start(&step, &["--context", "2000"]);
    let ask = |prompts: &[Vec<u32>]| json!({"prompt": prompts, "max_tokens": 0, "echo": true, "logprobs": 1, "temperature": 0});
    let few = ask(&[(0..30).map(|i| 97 + i % 20).collect()]);
    let alone = server.granted(&few)["choices"].clone();
    // Each of these takes a turn by itself, and all of them far longer than a small answer does on any machine.
    let many: Vec<Vec<u32>> =
        (0..256).map(|k| (0..2000).map(|i| 97 + (i * (k + 1)) % 20).collect()).collect();
    let before = server.count("scored_tokens_total");
    let large: Vec<TcpStream> =
        (0..3).map(|_| server.send("/v1/completions", &ask(&many).to_string(), "")).collect();
    server.until("they are being scored", |server| server.count("scored_tokens_total") > before);
    let beside = server.granted(&few)["choices"].clone();
    let scored = server.count("scored_tokens_total") - before;
    assert!(scored < 3.0 * 256.0 * 2000.0, "it has its answer before the others have all of theirs");
    assert_eq!(beside, alone);
    for large in large {
        let (status, text) = answer(large);
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, found["choices"].as_array().map(Vec::len)), (200, Some(256)));
    }
}
