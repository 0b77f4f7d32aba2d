package service

import (
	_ "embed"
	"runtime"
	"strings"

	kardianos "github.com/kardianos/service"
)

// What the service managers are told about the server. The texts hold no template
// of the library's, so that they arrive as they are.
var (
	//go:embed homeroom.service
	systemdUnit string
	//go:embed homeroom.openrc
	openRCScript string
	//go:embed homeroom.sysv
	sysvScript string
)

// The service's places. The scripts name them too; a test compares.
const (
	homeroom     = "homeroom" // of its user and group too
	programFile  = "/usr/local/bin/homeroom"
	SettingsFile = "/etc/homeroom/chat.toml"
	Data         = "/var/lib/homeroom"
	LogFile      = "/var/log/homeroom/homeroom.log" // where there is no journal;
	errorsFile   = "/var/log/homeroom/stderr.log"   // and for output that is not the log's
	unitPath     = "/etc/systemd/system/homeroom.service"
	scriptPath   = "/etc/init.d/homeroom"
)

// The service managers, by the library's names.
const (
	onSystemd = "linux-systemd"
	onOpenRC  = "linux-openrc"
	onSysV    = "unix-systemv"
)

// manager is a service manager that knows one service: the library's, or a test's.
type manager interface {
	Install() error
	Uninstall() error
	Start() error
	Stop() error
	Restart() error
	Status() (kardianos.Status, error)
}

// connectManager connects to this machine's service manager, which gets the script
// at Install.
func connectManager(script string) (manager, error) {
	return kardianos.New(nil, &kardianos.Config{
		Name:       homeroom,
		Executable: programFile,
		Option:     kardianos.KeyValue{"SystemdScript": script, "OpenRCScript": script, "SysvScript": script},
	})
}

// scriptFor is the script for a service manager, of a server whose data is in a
// folder. arch is the program's, as Go calls it.
func scriptFor(platform, data, arch string) string {
	switch platform {
	case onOpenRC:
		return openRCScript
	case onSysV:
		return sysvScript
	}
	text := systemdUnit
	// A 32-bit program on a 64-bit system makes system calls of another kind.
	if other := map[string]string{"arm": "arm", "386": "x86"}[arch]; other != "" {
		text = strings.Replace(text, "SystemCallArchitectures=native", "SystemCallArchitectures=native "+other, 1)
	}
	if data != Data {
		text = strings.Replace(text, "ProtectSystem=strict", "ProtectSystem=strict\nReadWritePaths="+quoteUnit(data), 1)
	}
	return text
}

// quoteUnit writes a path as a word of a systemd unit.
func quoteUnit(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(path) + `"`
}

// ownScript is the script for the program that runs now.
func (m *Machine) ownScript(data string) string {
	return scriptFor(m.platform, data, runtime.GOARCH)
}

// unitFile is where a service manager has its script.
func (m *Machine) unitFile() string {
	if m.platform == onSystemd {
		return m.at(unitPath)
	}
	return m.at(scriptPath)
}
