package wire

import (
	"net"
	"testing"
	"time"
)

// Manager is a service manager's end of sd_notify.
type Manager struct {
	Name string // of its socket
	t    testing.TB
	conn *net.UnixConn
}

// NewManager listens on a socket with that name until the test ends.
func NewManager(t testing.TB, name string) *Manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Manager{Name: name, t: t, conn: conn}
}

// Heard returns the next state that a server reports.
func (m *Manager) Heard() string {
	m.t.Helper()
	buf := make([]byte, 1000)
	_ = m.conn.SetReadDeadline(time.Now().Add(Patience))
	n, err := m.conn.Read(buf)
	if err != nil {
		m.t.Fatalf("the service manager hears nothing: %v", err)
	}
	return string(buf[:n])
}
