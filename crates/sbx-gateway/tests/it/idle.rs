//! Connections to upstreams that wait for the next request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use sbx_gateway::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Setup, run};

/// Answers once so many requests wait for it, each on a connection of its own; with how many of those are open.
fn upstream(together: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let (counted, barrier) = (open.clone(), Arc::new(Barrier::new(together)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, open, barrier) = (stream.unwrap(), counted.clone(), barrier.clone());
            std::thread::spawn(move || {
                open.fetch_add(1, Ordering::SeqCst);
                let mut piece = vec![0; 4096];
                while let Ok(1..) = stream.read(&mut piece) {
                    barrier.wait();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).unwrap();
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

/// How many connections stay open after so many requests at a time.
fn kept_of(together: usize) -> usize {
    let (address, open) = upstream(together);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        let mut streams = Vec::new();
        for _ in 0..together {
            let mut stream = lab.proxy().await;
            let request = b"GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n";
            stream.write_all(request).await.unwrap();
            streams.push(stream);
        }
        for stream in &mut streams {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
            }
        }
        // Those that are closed are soon: nothing else would close any for a minute.
        let until = Instant::now() + Duration::from_secs(5);
        let most = together.min(limits::IDLE_UPSTREAMS);
        while open.load(Ordering::SeqCst) > most && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        open.load(Ordering::SeqCst)
    })
}

#[test]
fn so_many_connections_wait_for_the_next_request_and_with_one_more_a_quarter_goes() {
    let most = limits::IDLE_UPSTREAMS;
    assert_eq!(kept_of(most), most);
    let left = kept_of(most + 1);
    assert!((most / 2..=most - most / 4).contains(&left), "{left}");
}
