package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// listenControl opens the control socket. What a killed server left is removed:
// the folder's lock is held, so nobody uses it. A disk without sockets (FAT, say)
// does not keep the chat from running.
func (srv *server) listenControl() {
	l, err := openControl(srv.cfg.Server.Data)
	if err != nil {
		slog.Warn("there is no control socket: commands such as `homeroom admin` will not reach this server", "error", err)
		return
	}
	srv.doorway.mu.Lock()
	srv.doorway.control = l
	srv.doorway.mu.Unlock()
	srv.doorway.controlling.Go(func() { srv.acceptControl(l) })
}

func openControl(folder string) (net.Listener, error) {
	file := filepath.Join(folder, controlFile)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	path, release, err := socketPath(folder)
	if err != nil {
		return nil, err
	}
	defer release()
	private := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) }) // the file will have this mode
		return errors.Join(err, failed)
	}}
	l, err := private.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by then the path may be gone
	return l, nil
}

// acceptControl serves who connects to the control socket, until it is closed.
func (srv *server) acceptControl(l net.Listener) {
	patient := &patientListener{Listener: l}
	for {
		conn, err := patient.Accept()
		if err != nil {
			return
		}
		srv.serveHost(conn)
	}
}

// serveHost starts a session of the operator. No limit on connections counts it.
func (srv *server) serveHost(conn net.Conn) {
	s := newSession(srv, newNetLink(conn))
	s.host = true
	s.who.Store(hostIdentity())
	srv.doorway.begin(s)
}

// closeControl closes the control socket and removes it.
func (srv *server) closeControl() error {
	srv.doorway.mu.Lock()
	l := srv.doorway.control
	srv.doorway.mu.Unlock()
	if l == nil {
		return nil
	}
	err := l.Close()
	srv.doorway.controlling.Wait()
	if gone := os.Remove(filepath.Join(srv.cfg.Server.Data, controlFile)); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// controlFile is the socket in the data folder through which this machine's
// operator speaks to the running server. Whoever may open it may do everything.
const controlFile = "control.sock"

// longestSocketPath is how long the path of a socket may be (unix(7)); one byte
// ends it.
const longestSocketPath = 107

// socketPath is a path by which a folder's control socket can be reached: a way
// around the limit of its length where the folder's own path is too long. It
// holds until release.
func socketPath(folder string) (path string, release func(), err error) {
	path = filepath.Join(folder, controlFile)
	if len(path) <= longestSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(folder)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlFile), func() { dir.Close() }, nil
}
