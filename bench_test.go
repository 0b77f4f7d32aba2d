package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"homeroom/uring"
)

// BenchmarkParse: one line from the socket to its words.
func BenchmarkParse(b *testing.B) {
	in := []byte("#broadcast \"" + strings.Repeat("x", 64) + "\"\r\n")
	words := make([]string, 0, 8)
	var lines lineReader
	b.ReportAllocs()
	for b.Loop() {
		line, _, err := lines.next(in)
		if err != nil {
			b.Fatal(err)
		}
		words = splitWords(cleanLine(line), words[:0])
	}
	if len(words) != 2 {
		b.Fatalf("%d words, want 2", len(words))
	}
}

// nullSocket takes everything at the price of a system call and a bit of the
// network's code: it sends to a UDP socket that nobody reads.
func nullSocket(b *testing.B) (fd int) {
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { far.Close() })
	near, err := net.DialUDP("udp4", nil, far.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { near.Close() })
	raw, err := near.SyscallConn()
	if err == nil {
		err = raw.Control(func(number uintptr) { fd = int(number) })
	}
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

// BenchmarkBroadcast: one line to every member of a room, written to each.
// Allocations must not grow with the members.
func BenchmarkBroadcast(b *testing.B) {
	null := nullSocket(b)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, members := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			rings, _ := uring.Open(1) // none: each send is a system call
			defer rings.Close()
			room := &talk{rings: rings}
			for range members {
				o := newOutbox(newNetLink(near), new(atomic.Int64))
				o.fd = null
				room.join(o)
			}
			text := strings.Repeat("x", 64)
			b.ReportAllocs()
			for b.Loop() {
				room.say(messFrame("broadcast", "alice", text))
				room.flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(members), "ns/delivery")
		})
	}
}

// BenchmarkLogin: connect, log in as a guest, leave; with others in Home.
func BenchmarkLogin(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprintf("%d_in_Home", others), func(b *testing.B) {
			srv := startServer(b)
			for i := range others {
				srv.Guest(fmt.Sprintf("member%d", i))
			}
			b.ReportAllocs()
			for b.Loop() {
				c := srv.Guest("alice")
				c.Ask("#quit", "@status 0")
				c.Conn.Close()
			}
		})
	}
}

// posters runs so many connections that post to one group, each as fast as it
// is answered, n posts in all. One loop serves them, so that it is the server that
// is measured.
func posters(b *testing.B, srv *testServer, count int) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(poll)
	var sockets []int
	for i := range count {
		c := srv.Guest(fmt.Sprintf("poster%d", i))
		c.Ask("#joingroup posts", "@status 0")
		fd := newNetLink(c.Conn).FD()
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			b.Fatal(err)
		}
		sockets = append(sockets, fd)
	}
	const stored = "@status 0\r\n"
	post := []byte("#postmessage heading\r\n" + strings.Repeat("x", 200) + "\r\n")
	events, answer := make([]unix.EpollEvent, count), make([]byte, 100)
	b.ResetTimer()
	left := b.N
	for _, fd := range sockets[:min(count, left)] {
		_, err = unix.Write(fd, post)
		left--
	}
	for answered := 0; answered < b.N; {
		n, _ := unix.EpollWait(poll, events, -1)
		for _, e := range events[:max(n, 0)] {
			got, failed := unix.Read(int(e.Fd), answer)
			if err = errors.Join(err, failed); err != nil || string(answer[:got]) != stored {
				b.Fatalf("a post was answered with %q (%v)", answer[:max(got, 0)], err)
			}
			if answered++; left > 0 {
				_, err = unix.Write(int(e.Fd), post)
				left--
			}
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
}

// BenchmarkPost: acknowledged durable posts of 200 bytes.
func BenchmarkPost(b *testing.B) {
	for _, count := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d_posters", count), func(b *testing.B) {
			srv := startServer(b)
			srv.Guest("maker").Ask(`#creategroup posts "" anon`, "@status 0")
			before := procWritten(b)
			done := srv.store.Stats().Commits
			posters(b, srv, count)
			all := srv.store.Stats().Commits
			b.ReportMetric(float64(procWritten(b)-before)/float64(b.N), "disk-B/post")
			b.ReportMetric(float64(b.N)/float64(all-done), "posts/commit")
		})
	}
}

// procWritten is how many bytes this process has had written to disks.
func procWritten(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("there is no /proc/self/io here")
	}
	var n int64
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return 0
}
