package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How the kernel finds out that the other end of a connection is gone without
// a word (its Wi-Fi lost, its power cut). An idle connection is asked after
// aliveIdle, then every aliveEvery; the first question after unheardTime ends
// it, as does so long without an answer to bytes that were sent. Both are then
// over within 25 s: the kernel's timers may be a second late.
const (
	aliveIdle   = 10 * time.Second
	aliveEvery  = 5 * time.Second
	aliveCount  = 3
	unheardTime = 20 * time.Second
)

// listenTCP opens a port. Connections take over the listener's options, which
// spares setting them on each.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1, Control: setOptions}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// setOptions has the kernel watch over a listener's connections, and leave urgent data
// where it stands in the stream: telnet sends the second byte of its mark so, and without
// that byte the first one would take the next.
func setOptions(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		for _, option := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(aliveIdle / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(aliveEvery / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, aliveCount},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unheardTime / time.Millisecond)},
		} {
			if failed == nil {
				failed = unix.SetsockoptInt(int(fd), option.level, option.name, option.value)
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("setting the options of a listener: %w", err)
	}
	return nil
}

const (
	shortestAcceptPause = 5 * time.Millisecond
	longestAcceptPause  = time.Second
	acceptWarnEvery     = time.Minute
)

// patientListener is a listener that tries again after an error, which may pass:
// the limit of open files, say.
type patientListener struct {
	net.Listener
	warned time.Time
}

// Accept returns the next connection. It fails only when the listener is closed.
func (l *patientListener) Accept() (net.Conn, error) {
	for pause := shortestAcceptPause; ; pause = min(2*pause, longestAcceptPause) {
		conn, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if now := time.Now(); now.Sub(l.warned) > acceptWarnEvery {
			l.warned = now
			slog.Warn("cannot accept connections; it is tried again", "error", err)
		}
		time.Sleep(pause)
	}
}
