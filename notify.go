package main

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifier tells the service manager how the server is: sd_notify(3).
type notifier struct {
	socket   string        // "": there is none, and nothing is told
	watchdog time.Duration // within which it must hear that the server is well; 0: it need not
}

// newNotifier reads what the service manager has left in the environment.
func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	mine := os.Getenv("WATCHDOG_PID") == "" || os.Getenv("WATCHDOG_PID") == strconv.Itoa(os.Getpid())
	if err == nil && usec > 0 && mine && n.socket != "" {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// tell sends a state, such as READY=1.
func (n notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // in the abstract name space
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		conn.Close()
	}
	if err != nil {
		slog.Warn("cannot tell the service manager how the server is", "state", state, "error", err)
	}
}

// feedWatchdog tells the service manager, again and again, that the server is
// well, after it has seen so. Where something hangs it tells nothing, and the
// service manager starts the server afresh.
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

// prove sees that the database's writer answers through its own queue, and that a
// line goes through the port and back. An answer that refuses is an answer too.
func (srv *server) prove(within time.Duration) error {
	srv.store.Heartbeat()
	return pingLine(srv.doorway.listener.Addr(), within)
}
