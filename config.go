package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"

	"homeroom/logbook"
	"homeroom/mdns"
)

// sampleConfig is chat.toml as it comes with the program: the documentation of
// the settings. A test holds its values against defaultConfig.
//
//go:embed chat.toml
var sampleConfig string

// duration is a time in the settings: "30m", or 0 for off.
type duration struct{ time.Duration }

// UnmarshalTOML takes "30m" and 0; a bare number has no unit and is refused.
func (d *duration) UnmarshalTOML(value any) error {
	text, isText := value.(string)
	if number, ok := value.(int64); ok && number == 0 {
		text, isText = "0s", true
	}
	parsed, err := time.ParseDuration(text)
	if !isText || err != nil {
		return fmt.Errorf(`%v is no time; write it like "90s", "30m" or "168h"`, value)
	}
	d.Duration = parsed
	return nil
}

// config is every setting; its keys are explained in chat.toml. What has the tag
// reload:"start", or stands in a section that has it, changes only at a start.
type config struct {
	Server struct {
		Name              string
		Listen, Data, Key string `reload:"start"`
	}
	Limits limits
	Expiry struct {
		Room, Group, Message, Max duration
	}
	Persist struct {
		Mode  string
		Every duration
	} `reload:"start"`
	Auth struct {
		PlainPassword string `toml:"plain_password"`
		ChallengeMD5  bool   `toml:"challenge_md5"`
		Iterations    int    `reload:"start"`
		Guests        bool   // may log in
		Registration  string // "open": whoever comes may make an account; "admin": administrators
		PasswordMin   int    `toml:"password_min"` // bytes of an account's new password
	}
	TLS struct {
		Listen, Cert, Key string
	} `reload:"start"`
	Admin struct {
		Reboot, Poweroff string
	}
	Log struct {
		To, File, Level string
		SizeKiB         int `toml:"size_kib"`
		Keep            int
	}
	Find struct {
		Announce bool
		Name     string
	} `reload:"start"`
	Web struct {
		Listen  string `reload:"start"`
		Metrics string
	}
	SSH struct {
		Listen string
	} `reload:"start"`
}

// limits bound what anybody can take from the others; 0: no bound.
type limits struct {
	Connections       int
	ConnectionsPerIP  int `toml:"connections_per_ip"`
	Waiting           int
	WaitingPerIP      int      `toml:"waiting_per_ip"`
	LocalAddresses    int      `toml:"local_addresses"`
	LoginGrace        duration `toml:"login_grace"`
	CommandsPerSecond int      `toml:"commands_per_second"`
	CommandBurst      int      `toml:"command_burst"`
	GuessesPerAccount int      `toml:"guesses_per_account"`
	HashesPerMinute   int      `toml:"hashes_per_minute"`
	LoginsPerMinute   int      `toml:"logins_per_minute"`
	Accounts          int
	Rooms             int
	Groups            int
	Messages          int
	MessageParts      int      `toml:"message_parts"`
	UnfinishedKiB     int      `toml:"unfinished_kib"`
	UnfinishedKiBEach int      `toml:"unfinished_kib_each"`
	UnfinishedTime    duration `toml:"unfinished_time"`
	StoreMiB          int      `toml:"store_mib"`
	StoreMiBEach      int      `toml:"store_mib_each"`
	ReserveMiB        int      `toml:"reserve_mib"`
	Bans              int
	RoomBans          int `toml:"room_bans"`
}

// defaultConfig is what holds where chat.toml says nothing.
func defaultConfig() config {
	var c config
	c.Server.Name, c.Server.Listen, c.Server.Data = "Homeroom", ":6500", "data"
	c.Limits.Connections, c.Limits.ConnectionsPerIP = 10000, 512
	c.Limits.Waiting, c.Limits.WaitingPerIP = 512, 256
	c.Limits.LocalAddresses = 256
	c.Limits.LoginGrace = duration{2 * time.Minute}
	c.Limits.CommandsPerSecond, c.Limits.CommandBurst = 20, 60
	c.Limits.LoginsPerMinute, c.Limits.GuessesPerAccount, c.Limits.HashesPerMinute = 20, 20, 120
	c.Limits.Accounts = 100000
	c.Limits.Rooms, c.Limits.Groups = 1000, 1000
	c.Limits.Messages, c.Limits.MessageParts = 1000000, 200
	c.Limits.UnfinishedKiB, c.Limits.UnfinishedKiBEach = 16384, 2048
	c.Limits.UnfinishedTime = duration{time.Minute}
	c.Limits.StoreMiB, c.Limits.StoreMiBEach, c.Limits.ReserveMiB = 1024, 64, 64
	c.Limits.Bans, c.Limits.RoomBans = 1000, 100
	c.Expiry.Room, c.Expiry.Group = duration{30 * time.Minute}, duration{168 * time.Hour}
	c.Expiry.Message, c.Expiry.Max = duration{720 * time.Hour}, duration{8760 * time.Hour}
	c.Persist.Mode, c.Persist.Every = "commit", duration{2 * time.Second}
	c.Auth.PlainPassword, c.Auth.Guests, c.Auth.Registration, c.Auth.PasswordMin = "lan", true, "open", 8
	c.Log.To, c.Log.Level, c.Log.SizeKiB, c.Log.Keep = "stderr", "info", 1024, 3
	c.Web.Listen, c.Web.Metrics = ":6580", "loopback"
	c.Find.Announce, c.Find.Name = true, "homeroom"
	return c
}

// settingsName is the settings file in the folder where the server is started.
const settingsName = "chat.toml"

// loadConfig reads the settings file. With no path it takes ./chat.toml if
// there is one, else the defaults.
func loadConfig(path string) (config, error) {
	c := defaultConfig()
	name := path
	if name == "" {
		name = settingsName
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && path == "" {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("cannot read the settings: %w", err)
	}
	return c, c.parse(name, string(text))
}

// folderIn is the data folder that a settings file names which may be faulty
// elsewhere. ok is false where the fault is in that very line.
func folderIn(text string) (folder string, ok bool) {
	var loose struct{ Server struct{ Data any } }
	loose.Server.Data = defaultConfig().Server.Data
	if _, err := toml.Decode(text, &loose); err != nil {
		line := strings.Split(text, "\n")[lineOfKey(text, []string{"server", "data"})-1]
		key, _, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if key != "data" && key != "server.data" {
			return defaultConfig().Server.Data, !dataLine.MatchString(text)
		}
		loose.Server.Data = nil
		if _, err := toml.Decode("[server]\n"+strings.Replace(line, "server.data", "data", 1), &loose); err != nil {
			return "", false
		}
	}
	folder, ok = loose.Server.Data.(string)
	return folder, ok && folder != ""
}

// dataLine is a line that may be meant to set server.data.
var dataLine = regexp.MustCompile(`(?m)^[^#\n]*\bdata\b`)

// exists reports whether there is a file of this name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// parse reads settings over what c holds and checks them. Its errors name the
// file, the line and the reason.
func (c *config) parse(name, text string) error {
	meta, err := toml.Decode(text, c)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return fmt.Errorf("%s, line %d: %s", name, syntax.Position.Line, visible(syntax.Message))
		}
		return wrongType(name, err)
	}
	known := knownSettings()
	for _, key := range meta.Keys() {
		if !known[key.String()] {
			return fmt.Errorf("%s, line %d: there is no setting %s; `homeroom config` shows them all",
				name, lineOfKey(text, key), visible(key.String()))
		}
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%s, line %d: %w", name, lineOfKey(text, strings.Split(err.key, ".")), err)
	}
	return nil
}

// typeError is how the TOML library says that a value has another type than its
// key. It has no error type for that.
var typeError = regexp.MustCompile(`^toml: line (\d+) \(last key "([^"]*)"\): incompatible types: .* destination has type (\w+)`)

// wrongType says which line has a value of the wrong type, and which is right.
func wrongType(name string, err error) error {
	parts := typeError.FindStringSubmatch(err.Error())
	if parts == nil {
		return fmt.Errorf("%s: %s", name, visible(strings.TrimPrefix(err.Error(), "toml: ")))
	}
	want := map[string]string{
		"string": `a text in quotes, like "this"`, "integer": "a number", "boolean": "true or false",
	}[parts[3]]
	if want == "" {
		want = "of type " + parts[3]
	}
	return fmt.Errorf("%s, line %s: %s must be %s", name, parts[1], visible(parts[2]), want)
}

// visible shows what a file holds in one line that does nothing to a terminal.
func visible(text string) string {
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// maxRounds is the most that auth.iterations can be: more costs the server more than
// a thief.
const maxRounds = 600_000

// knownSettings returns every key of the sample file, with its sections.
func knownSettings() map[string]bool {
	var any map[string]any
	meta, err := toml.Decode(sampleConfig, &any)
	if err != nil {
		panic("the embedded chat.toml: " + err.Error())
	}
	known := map[string]bool{}
	for _, key := range meta.Keys() {
		known[key.String()] = true
	}
	return known
}

// lineOfKey finds where a settings file sets a key; 1 where it does not.
func lineOfKey(text string, key []string) int {
	section, name := "", key[len(key)-1]
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if head, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSpace(strings.SplitN(head, "]", 2)[0])
			if section == strings.Join(key, ".") {
				return i + 1
			}
			continue
		}
		left, _, isPair := strings.Cut(line, "=")
		full := strings.Trim(strings.TrimSpace(left), `"'`)
		inSection := section == strings.Join(key[:len(key)-1], ".")
		if isPair && (inSection && full == name || section == "" && full == strings.Join(key, ".")) {
			return i + 1
		}
	}
	return 1
}

// settingError is a value that makes no sense, and the key that holds it.
type settingError struct{ key, reason string }

func (e *settingError) Error() string { return e.key + " " + e.reason }

// check refuses values that make no sense.
func (c *config) check() *settingError {
	for _, check := range []func() *settingError{c.checkServer, c.checkLimits, c.checkTimes, c.checkChoices, c.checkTLS, c.checkLog, c.checkWeb, c.checkFind} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) checkServer() *settingError {
	name := c.Server.Name
	if name == "" || len(name) > 100 || strings.ContainsFunc(name, unicode.IsControl) {
		return &settingError{"server.name", "must have 1 to 100 bytes and no control characters"}
	}
	if err := checkAddress(c.Server.Listen); err != nil {
		return &settingError{"server.listen", err.Error()}
	}
	if c.Server.Data == "" {
		return &settingError{"server.data", "must name a folder"}
	}
	return nil
}

// checkAddress takes ":6500", "192.168.1.20:6500" and "[::1]:6500".
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf(`must be an address and a port, like ":6500", not %q`, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("must end in a port from 0 to 65535, not %q", port)
	}
	return nil
}

func (c *config) checkLimits() *settingError {
	l := &c.Limits
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"connections", l.Connections}, {"connections_per_ip", l.ConnectionsPerIP},
		{"waiting", l.Waiting}, {"waiting_per_ip", l.WaitingPerIP}, {"local_addresses", l.LocalAddresses},
		{"commands_per_second", l.CommandsPerSecond}, {"command_burst", l.CommandBurst},
		{"logins_per_minute", l.LoginsPerMinute}, {"guesses_per_account", l.GuessesPerAccount}, {"hashes_per_minute", l.HashesPerMinute}, {"accounts", l.Accounts},
		{"rooms", l.Rooms}, {"groups", l.Groups},
		{"messages", l.Messages}, {"message_parts", l.MessageParts},
		{"unfinished_kib", l.UnfinishedKiB}, {"unfinished_kib_each", l.UnfinishedKiBEach},
		{"store_mib", l.StoreMiB}, {"store_mib_each", l.StoreMiBEach}, {"reserve_mib", l.ReserveMiB}, {"bans", l.Bans}, {"room_bans", l.RoomBans},
	} {
		if limit.value < 0 {
			return &settingError{"limits." + limit.key, "must not be negative; 0 switches it off"}
		}
	}
	if l.CommandsPerSecond > 0 && l.CommandBurst == 0 {
		return &settingError{"limits.command_burst", "must be at least 1 while commands_per_second is set"}
	}
	return nil
}

func (c *config) checkTimes() *settingError {
	for _, setting := range []struct {
		key   string
		value duration
	}{
		{"limits.login_grace", c.Limits.LoginGrace}, {"limits.unfinished_time", c.Limits.UnfinishedTime}, {"expiry.room", c.Expiry.Room},
		{"expiry.group", c.Expiry.Group}, {"expiry.message", c.Expiry.Message},
		{"expiry.max", c.Expiry.Max}, {"persist.every", c.Persist.Every},
	} {
		if setting.value.Duration < 0 {
			return &settingError{setting.key, "must not be negative; 0 switches it off"}
		}
	}
	if c.Persist.Every.Duration < 10*time.Millisecond {
		return &settingError{"persist.every", `must be at least "10ms"`}
	}
	return nil
}

func (c *config) checkChoices() *settingError {
	if c.Persist.Mode != "commit" && c.Persist.Mode != "periodic" {
		return &settingError{"persist.mode", `must be "commit" or "periodic"`}
	}
	for key, line := range map[string]string{"admin.reboot": c.Admin.Reboot, "admin.poweroff": c.Admin.Poweroff} {
		if words := splitWords(line, nil); line != "" && (len(words) == 0 || words[0] == "") {
			return &settingError{key, `must be a command, or "" for off`}
		}
	}
	switch c.Auth.PlainPassword {
	case "lan", "loopback", "never":
	default:
		return &settingError{"auth.plain_password", `must be "lan", "loopback" or "never"`}
	}
	if r := c.Auth.Registration; r != "open" && r != "admin" {
		return &settingError{"auth.registration", `must be "open" or "admin"`}
	}
	if n := c.Auth.PasswordMin; n < 0 || n > maxPassword {
		return &settingError{"auth.password_min", fmt.Sprintf("must be 0 to %d", maxPassword)}
	}
	if n := c.Auth.Iterations; n < 0 || n > maxRounds {
		return &settingError{"auth.iterations", fmt.Sprintf("must be 0 to %d", maxRounds)}
	}
	for _, l := range c.laterListeners() {
		if err := checkAddress(l.address); err != nil {
			return &settingError{l.key, err.Error()}
		}
	}
	return nil
}

// laterListener is an address at which a later version will listen.
type laterListener struct{ key, address string }

// laterListeners are those that the settings ask for: files for a later version
// are taken, and the start says what is missing.
func (c *config) laterListeners() (later []laterListener) {
	for _, l := range []laterListener{{"ssh.listen", c.SSH.Listen}} {
		if l.address != "" {
			later = append(later, l)
		}
	}
	return later
}

func (c *config) checkTLS() *settingError {
	if c.TLS.Listen != "" {
		if err := checkAddress(c.TLS.Listen); err != nil {
			return &settingError{"tls.listen", err.Error()}
		}
	}
	switch {
	case c.TLS.Cert != "" && c.TLS.Key == "":
		return &settingError{"tls.cert", "needs tls.key too: the file with its private key"}
	case c.TLS.Key != "" && c.TLS.Cert == "":
		return &settingError{"tls.key", "needs tls.cert too: the file with its certificate"}
	}
	return nil
}

// logName is the log's file in the data folder where the settings name no other.
const logName = "homeroom.log"

// logFile is the file that the log goes to; "": it goes to stderr.
func (c *config) logFile() string {
	switch {
	case c.Log.To != "file":
		return ""
	case c.Log.File != "":
		return c.Log.File
	}
	return filepath.Join(c.Server.Data, logName)
}

// logOptions is what the log makes of the settings. Its lines are so short that #log
// can show each in one of the protocol.
func (c *config) logOptions() logbook.Options {
	return logbook.Options{
		File: c.logFile(), Level: logLevels()[c.Log.Level], Size: int64(c.Log.SizeKiB) << 10, Keep: c.Log.Keep,
		MaxLine: maxLine - len("@mess #log \"\"\r\n"),
	}
}

// logLevels is what log.level can be.
func logLevels() map[string]slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
}

func (c *config) checkLog() *settingError {
	const leastSize, mostSize, mostKept = 4, 1 << 20, 100
	if c.Log.To != "stderr" && c.Log.To != "file" {
		return &settingError{"log.to", `must be "stderr" or "file"`}
	}
	// The name is taken away from whatever has it, once that is full.
	if c.Log.File != "" && !strings.HasSuffix(c.Log.File, ".log") {
		return &settingError{"log.file", `must end in ".log"`}
	}
	if n := c.Log.SizeKiB; n < leastSize || n > mostSize {
		return &settingError{"log.size_kib", fmt.Sprintf("must be %d to %d", leastSize, mostSize)}
	}
	if n := c.Log.Keep; n < 0 || n > mostKept {
		return &settingError{"log.keep", fmt.Sprintf("must be 0 to %d", mostKept)}
	}
	if _, ok := logLevels()[c.Log.Level]; !ok {
		return &settingError{"log.level", `must be "debug", "info", "warn" or "error"`}
	}
	return nil
}

func (c *config) checkFind() *settingError {
	name := c.Find.Name
	if len(name) > mdns.MaxLabel || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") || strings.ContainsFunc(name, isNoHostLetter) {
		return &settingError{"find.name", `must have 1 to 63 letters (a to z), digits and hyphens, no hyphen first or last, or be "" for off`}
	}
	return nil
}

func (c *config) checkWeb() *settingError {
	if c.Web.Listen != "" {
		if err := checkAddress(c.Web.Listen); err != nil {
			return &settingError{"web.listen", err.Error()}
		}
	}
	if c.Web.Metrics != "loopback" && c.Web.Metrics != "all" {
		return &settingError{"web.metrics", `must be "loopback" or "all"`}
	}
	return nil
}

// isNoHostLetter reports whether a character cannot be in one part of a host's name.
func isNoHostLetter(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

// oneLine joins the lines of an error that has several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// foundHost is the host name that the settings ask for, such as homeroom.local; "":
// none.
func (c *config) foundHost() string {
	if !c.Find.Announce || c.Find.Name == "" {
		return ""
	}
	return strings.ToLower(c.Find.Name) + ".local"
}

// sameFolder reports whether two paths lead to one folder.
func sameFolder(a, b string) bool {
	first, err := os.Stat(a)
	second, errSecond := os.Stat(b)
	return err == nil && errSecond == nil && os.SameFile(first, second)
}
