package service

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// at is where a path is on the machine.
func (m *Machine) at(path string) string { return m.root + path }

// say prints a line for the user.
func (m *Machine) say(format string, args ...any) { fmt.Fprintf(m.out, format+"\n", args...) }

// runProgram runs a program of the system; its error holds the program's output.
func runProgram(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %q", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func hasProgram(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// Installed reports whether this machine has the service, or has the settings of one:
// commands act on that rather than on what lies in some folder.
func Installed() bool {
	for _, path := range []string{SettingsFile, unitPath, scriptPath, "/usr/lib/systemd/system/homeroom.service", "/lib/systemd/system/homeroom.service"} {
		if exists(path) {
			return true
		}
	}
	return false
}

// installed reports whether the machine has the service.
func (m *Machine) installed() bool {
	return exists(m.unitFile()) || m.packaged() != ""
}

// packaged is the unit that a package of the system has put there, or "".
func (m *Machine) packaged() string {
	for _, folder := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
		if path := filepath.Join(folder, homeroom+".service"); m.platform == onSystemd && exists(m.at(path)) {
			return path
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// systemUser is a user or a group of the system.
type systemUser struct {
	name, home string
	id, group  int
}

// findUser looks a name up in /etc/passwd or /etc/group.
func (m *Machine) findUser(file, name string) (found systemUser, ok bool) {
	text, _ := os.ReadFile(m.at(file)) // without it there are none
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || fields[0] != name {
			continue
		}
		id, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		found = systemUser{name: name, id: id}
		if len(fields) >= 6 {
			found.home = fields[5]
			found.group, _ = strconv.Atoi(fields[3]) // the system wrote it
		}
		return found, true
	}
	return systemUser{}, false
}

// user is the user that the service runs as.
func (m *Machine) user() (systemUser, bool) { return m.findUser("/etc/passwd", homeroom) }

// makeUser makes the service's group and user where they are missing.
func (m *Machine) makeUser() error {
	user, ok := m.user()
	if ok && user.home != Data && user.id >= 1000 {
		return fmt.Errorf("there is a user %s already, with the home %s, who is somebody else; the service needs that name", homeroom, user.home)
	}
	if _, there := m.findUser("/etc/group", homeroom); !there {
		if err := m.runFirst([]string{"groupadd", "--system", homeroom}, []string{"addgroup", "-S", homeroom}); err != nil {
			return fmt.Errorf("cannot make the group %s: %w", homeroom, err)
		}
	}
	if ok {
		return nil
	}
	err := m.runFirst(
		[]string{"useradd", "--system", "--gid", homeroom, "--home-dir", Data, "--no-create-home",
			"--shell", m.noLogin(), "--comment", "Homeroom", homeroom},
		[]string{"adduser", "-S", "-D", "-H", "-h", Data, "-s", m.noLogin(), "-G", homeroom, homeroom})
	if err != nil {
		return fmt.Errorf("cannot make the user %s: %w", homeroom, err)
	}
	m.say("made the user and the group %s", homeroom)
	return nil
}

// noLogin is the shell of accounts that nobody logs in to.
func (m *Machine) noLogin() string {
	for _, shell := range []string{"/usr/sbin/nologin", "/sbin/nologin"} {
		if exists(m.at(shell)) {
			return shell
		}
	}
	return "/bin/false"
}

// runFirst runs the first of these whose program is there.
func (m *Machine) runFirst(choices ...[]string) error {
	var names []string
	for _, c := range choices {
		if m.has(c[0]) {
			return m.run(c[0], c[1:]...)
		}
		names = append(names, c[0])
	}
	return fmt.Errorf("there is no %s", strings.Join(names, " and no "))
}

// removeUser removes the service's user and group, if installing has made them.
func (m *Machine) removeUser() error {
	if user, ok := m.user(); ok {
		if user.home != Data {
			return nil
		}
		if err := m.runFirst([]string{"userdel", homeroom}, []string{"deluser", homeroom}); err != nil {
			return fmt.Errorf("cannot remove the user %s: %w", homeroom, err)
		}
	}
	if _, there := m.findUser("/etc/group", homeroom); there { // most systems remove it with its user
		if err := m.runFirst([]string{"groupdel", homeroom}, []string{"delgroup", homeroom}); err != nil {
			return fmt.Errorf("cannot remove the group %s: %w", homeroom, err)
		}
	}
	return nil
}
