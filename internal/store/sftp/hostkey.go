package sftp

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"dbbackup/internal/fault"
)

// hostKeys decides whether a server is the one that it should be.
type hostKeys struct {
	loc      location
	files    []string // those that exist
	asked    []string
	callback ssh.HostKeyCallback
	algos    []string
}

// knownHosts reads the files. A server in none of them cannot be connected to.
func knownHosts(loc location, asked []string) (*hostKeys, error) {
	k := &hostKeys{loc: loc, asked: asked}
	for _, name := range asked {
		if _, err := os.Stat(name); err == nil {
			k.files = append(k.files, name)
		}
	}
	var err error
	if k.callback, err = knownhosts.New(k.files...); err != nil {
		return nil, fault.New(fault.Precondition, "mend the line, or name another file with DBBACKUP_SFTP_KNOWN_HOSTS", "read known host keys: %w", err)
	}
	if k.algos, err = k.algorithms(); err != nil {
		return nil, err
	}
	return k, nil
}

// check is the ssh.HostKeyCallback.
func (k *hostKeys) check(address string, remote net.Addr, key ssh.PublicKey) error {
	err := k.callback(address, remote, key)
	if err == nil {
		return nil
	}
	fingerprint := ssh.FingerprintSHA256(key)
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		return fault.New(fault.Precondition, "do not connect before the server's administrator gave it a new key",
			"the host key of %s (%s %s) is revoked by %s, line %d", k.loc.host, key.Type(), fingerprint, revoked.Revoked.Filename, revoked.Revoked.Line)
	case errors.As(err, &unknown) && len(unknown.Want) > 0:
		want := unknown.Want[0]
		return fault.New(fault.Precondition,
			"somebody may be in between: ask the server's administrator; only if the key was changed on purpose, run ssh-keygen -R '"+knownhosts.Normalize(k.loc.address())+"' and add the new one",
			"the host key of %s is %s %s, which is not the one in %s, line %d", k.loc.host, key.Type(), fingerprint, want.Filename, want.Line)
	case errors.As(err, &unknown):
		return fault.New(fault.Precondition, k.hintUnknown(),
			"the host key of %s (%s %s) is in no known_hosts file (%s)", k.loc.host, key.Type(), fingerprint, strings.Join(k.asked, ", "))
	}
	return fault.New(fault.Precondition, "ask the server's administrator about its host certificate", "the host key of %s: %w", k.loc.host, err)
}

func (k *hostKeys) hintUnknown() string {
	file := "~/.ssh/known_hosts"
	if len(k.asked) > 0 {
		file = k.asked[0]
	}
	return fmt.Sprintf("connect once with ssh -p %s %s@%s and compare the fingerprint, or run ssh-keyscan -p %s %s >> %s and compare it with ssh-keygen -lf",
		k.loc.port, k.loc.user, k.loc.host, k.loc.port, k.loc.host, file)
}

// algorithms returns the kinds of host key that the files have for the server,
// so that it shows one that can be compared: by itself it would show the kind
// that it likes best. Empty means all.
func (k *hostKeys) algorithms() ([]string, error) {
	err := k.callback(k.loc.address(), &net.TCPAddr{}, noKey{})
	var known *knownhosts.KeyError
	if !errors.As(err, &known) {
		return nil, err
	}
	var algos []string
	for _, want := range known.Want {
		authority, err := isAuthority(want)
		if err != nil {
			return nil, err
		}
		if authority {
			algos = append(algos, certificates...)
		} else {
			algos = append(algos, signatures(want.Key.Type())...)
		}
	}
	slices.Sort(algos)
	return slices.Compact(algos), nil
}

var certificates = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA256v01, ssh.CertAlgoRSASHA512v01,
}

// signatures are the ways in which a key of that type signs.
func signatures(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// isAuthority reads a known key's line again: the library does not say whether
// it is an authority's.
func isAuthority(key knownhosts.KnownKey) (bool, error) {
	file, err := os.Open(key.Filename)
	if err != nil {
		return false, fault.New(fault.Precondition, "", "read known host keys: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		if n == key.Line {
			return strings.HasPrefix(strings.TrimSpace(lines.Text()), "@cert-authority"), nil
		}
	}
	return false, lines.Err()
}

// noKey is a key that no file has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
