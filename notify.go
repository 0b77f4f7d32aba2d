package main

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifier reports to the service manager by sd_notify(3).
type notifier struct {
	socket   string        // "": there is no service manager that listens
	watchdog time.Duration // the manager restarts a server that is silent for so long; 0: it does not watch
}

// newNotifier takes the address of the service manager from the environment.
func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	mine := os.Getenv("WATCHDOG_PID") == "" || os.Getenv("WATCHDOG_PID") == strconv.Itoa(os.Getpid())
	if err == nil && usec > 0 && mine && n.socket != "" {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// tell sends a state such as READY=1.
func (n notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // an abstract socket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		conn.Close()
	}
	if err != nil {
		slog.Warn("cannot tell the service manager the state of the server", "state", state, "error", err)
	}
}

// feedWatchdog checks the server three times in each period of the watchdog, and
// reports it alive where the check succeeds. A server that hangs is not reported, and
// the service manager restarts it.
func (srv *server) feedWatchdog(n notifier, stop <-chan struct{}) {
	pace := time.NewTicker(n.watchdog / 3)
	defer pace.Stop()
	for {
		if err := srv.prove(n.watchdog / 3); err == nil {
			n.tell("WATCHDOG=1")
		} else {
			slog.Error("the server does not serve; the service manager will start it afresh", "error", err)
		}
		select {
		case <-stop:
			return
		case <-pace.C:
		}
	}
}

// prove checks that the database's writer answers through its own queue, and that a
// line goes through the port and back. A refusal counts as an answer.
func (srv *server) prove(within time.Duration) error {
	srv.store.Heartbeat()
	return pingLine(srv.doorway.listener.Addr(), within)
}
