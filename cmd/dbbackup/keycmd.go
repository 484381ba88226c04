package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
)

func (a *application) keyCommand() *cli.Command {
	return a.group("key", "make keys for encryption, see who can open the sets of a store, and change that",
		a.command("new", "make a folder with a key pair for encryption and one for signatures", "DIR",
			exampleLines("key new /etc/dbbackup/keys", "key new --passphrase ~/backup-keys"),
			under("Key", []cli.Flag{
				onceFlag("passphrase", "protect the private key for reading with a passphrase"),
				onceFlag("post-quantum", "make keys that resist quantum computers; age 1.3 or later reads them"),
				stringFlag("passphrase-file", "the passphrase is the first line of this `FILE` (or "+passphraseVariable+" is the passphrase)", ""),
			}), a.keyNew),
		a.command("list", "list the keys that are given, and whom the sets of the store are encrypted to", "",
			exampleLines("key list --keys /etc/dbbackup/keys --store /backup", "key list --json"),
			join(under("Encryption", join(recipientFlags(), []cli.Flag{signFlag()}, readingKeyFlags())), outputFlags()), a.keyList),
		a.command("rotate", "make sets readable by other recipients, and no longer by those before; data is not touched", "[SET]...",
			exampleLines("key rotate --identity old.txt --recipients-file new.txt", "key rotate cluster-20260102T0304 --keys old --recipient age1..."),
			join(under("Encryption", join(recipientFlags(), []cli.Flag{
				stringFlag("new-passphrase-file", "the new passphrase is the first line of this `FILE`", ""),
			}, readingKeyFlags())), outputFlags()), a.keyRotate))
}

// keyNew makes a folder of keys.
func (a *application) keyNew(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 1, 1); err != nil {
		return err
	}
	folder := s.Args().First()
	secret, err := seal.NewSecret(s.Bool("post-quantum"))
	if err != nil {
		return err
	}
	signer, err := seal.NewSigner()
	if err != nil {
		return err
	}
	identity := secret.IdentityFile("made by dbbackup at " + time.Now().UTC().Format(time.RFC3339))
	if s.Bool("passphrase") {
		var guard seal.Recipients
		if err := s.addPassphrase(ctx, &guard); err != nil {
			return err
		}
		if guard.Empty() {
			return fault.New(fault.Usage, "--passphrase-file FILE, "+passphraseVariable+", or a terminal to ask on", "there is no passphrase to protect the key with")
		}
		if identity, err = guard.WrapArmored(identity); err != nil {
			return err
		}
	}
	private, err := signer.PEM()
	if err != nil {
		return err
	}
	public, err := signer.Public().PEM()
	if err != nil {
		return err
	}
	err = writeKeys(folder, []keyContent{
		{identityFile, identity}, {recipientsFile, []byte(secret.Recipient() + "\n")}, {signingFile, private}, {trustedFile, public},
	})
	if err != nil {
		return err
	}
	out := &printer{w: a.stdout}
	out.line("Public key: %s", secret.Recipient())
	out.line("Signing key: %s", signer.Public().Fingerprints()[0])
	out.line("")
	out.wrapped("", fmt.Sprintf("Hosts that back up need %s and %s of %s: they write, and cannot read. Those that restore need %s and %s: they read, and cannot forge.",
		recipientsFile, signingFile, folder, identityFile, trustedFile))
	out.wrapped("", fmt.Sprintf("Keep a copy of %s where the backups are not: without it nobody reads them again.", identityFile))
	return out.err
}

type keyContent struct {
	name string
	text []byte
}

// writeKeys writes files that nobody else reads into a folder of its own, and
// replaces none. Nothing is left of them when one cannot be written.
func writeKeys(folder string, files []keyContent) (err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fault.New(fault.Precondition, "", "make folder of keys: %w", err)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(folder, f.name)); !errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.Precondition, "name another folder", "%s is there already, and keys are never overwritten", filepath.Join(folder, f.name))
		}
	}
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for _, f := range files {
		path := filepath.Join(folder, f.name)
		if err := writeNew(path, f.text); err != nil {
			return fault.New(fault.Failed, "", "write key: %w", err)
		}
		made = append(made, path)
	}
	return syncFolder(folder)
}

// writeNew writes a file durably that is not there yet.
func writeNew(path string, text []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(text); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return file.Sync()
}

func syncFolder(path string) (err error) {
	folder, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	return folder.Sync()
}

// listedKey is one line of key list.
type listedKey struct {
	Store      string           `json:"store,omitempty"`
	Set        string           `json:"set,omitempty"`    // a set's key, or
	Source     string           `json:"source,omitempty"` // one that was given: recipient, signing, trusted
	Recipients []seal.Recipient `json:"recipients,omitempty"`
	Signer     string           `json:"signer,omitempty"` // fingerprint
	Rotations  int              `json:"rotations,omitempty"`
	Made       *time.Time       `json:"made,omitempty"`
	Leftover   bool             `json:"leftover,omitempty"` // a rotation was killed: an older wrapping is still there
	Problem    string           `json:"problem,omitempty"`
}

func (a *application) keyList(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	lines, err := s.givenKeys(ctx)
	if err != nil {
		return err
	}
	given := len(lines)
	err = s.eachStore(ctx, func(place store.Place) error {
		ofSets, err := setKeys(ctx, place)
		lines = append(lines, ofSets...)
		return err
	})
	if err != nil && (!fault.Is(err, fault.NotFound) || given == 0) { // there may be no store yet
		return err
	}
	if s.Bool("json") {
		encoder := json.NewEncoder(a.stdout)
		for _, line := range lines {
			if err := encoder.Encode(line); err != nil {
				return err
			}
		}
		return nil
	}
	return a.printKeys(lines)
}

// givenKeys are those that the command was given, without what is secret.
func (s *settings) givenKeys(ctx context.Context) ([]listedKey, error) {
	var lines []listedKey
	to, named, err := s.recipients()
	if err != nil {
		return nil, err
	}
	if named {
		lines = append(lines, listedKey{Source: "recipients", Recipients: to.Named()})
	}
	signer, err := s.signer()
	if err != nil {
		return nil, err
	}
	if signer != nil {
		lines = append(lines, listedKey{Source: "signing", Signer: signer.Public().Fingerprints()[0]})
	}
	keys, err := s.readKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, print := range keys.Trusted.Fingerprints() {
		lines = append(lines, listedKey{Source: "trusted", Signer: print})
	}
	for _, key := range keys.Ring.Public() {
		lines = append(lines, listedKey{Source: "identity", Recipients: []seal.Recipient{key}})
	}
	return lines, nil
}

// setKeys says of each encrypted set whom its key is wrapped to.
func setKeys(ctx context.Context, st store.Place) ([]listedKey, error) {
	entries, err := backupset.List(ctx, st)
	if err != nil {
		return nil, err
	}
	var lines []listedKey
	for _, e := range entries {
		if e.Sealed == nil {
			continue
		}
		line := listedKey{Store: st.String(), Set: e.ID, Signer: e.Sealed.Signer}
		info, versions, err := backupset.KeysOf(ctx, st, e.ID)
		switch {
		case fault.Is(err, fault.Integrity):
			line.Problem = err.Error()
		case err != nil:
			return nil, err
		default:
			line.Recipients, line.Made, line.Rotations, line.Leftover = info.Recipients, &info.Made, info.Version-1, versions > 1
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func (a *application) printKeys(lines []listedKey) error {
	if len(lines) == 0 {
		_, err := fmt.Fprintln(a.stdout, "No key was given, and the store holds no encrypted set.")
		return err
	}
	p := &printer{w: a.stdout}
	for _, line := range lines {
		var to []string
		for _, r := range line.Recipients {
			to = append(to, strings.TrimSpace(r.Type+" "+shortKey(r.Key)))
		}
		if line.Signer != "" {
			to = append(to, "signer "+line.Signer[:16])
		}
		if line.Rotations > 0 {
			to = append(to, "rotated "+line.Made.Format(time.DateOnly))
		}
		if line.Leftover {
			to = append(to, "AN OLDER WRAPPING IS LEFT: rotate again")
		}
		if line.Problem != "" {
			to = append(to, "DAMAGED: "+line.Problem)
		}
		p.line("%-32s %s", line.Set+line.Source, strings.Join(to, "; "))
	}
	return p.err
}

// shortKey is as much of a public key as tells it from others.
func shortKey(key string) string {
	if fields := strings.Fields(key); len(fields) > 1 {
		key = fields[1][max(0, len(fields[1])-16):] // of SSH keys the beginning is the same
	}
	return key[:min(len(key), 24)]
}

// rotatedJSON is the result of key rotate.
type rotatedJSON struct {
	Store   string        `json:"store"`
	Rotated []string      `json:"rotated"`
	Failed  []rotateError `json:"failed"`
}

type rotateError struct {
	Set   string `json:"set"`
	Error string `json:"error"`
}

// keyRotate wraps the keys of sets anew. A set that cannot be opened does not keep
// the others from it.
func (a *application) keyRotate(ctx context.Context, s *settings) error {
	if slices.Contains(s.Args().Slice(), "") {
		return wantArgs(s.Context, 0, s.NArg())
	}
	to, err := s.newRecipients()
	if err != nil {
		return err
	}
	keys, err := s.readKeys(ctx)
	if err != nil {
		return err
	}
	if keys.Ring.Empty() {
		return fault.New(fault.Usage, "--identity FILE, --keys DIR or --passphrase-file FILE", "a set's key must be opened before it can be wrapped anew, and nothing was given to open it with")
	}
	return s.eachStore(ctx, func(place store.Place) error { return a.rotateStore(ctx, s, place, keys, to) })
}

// rotateStore wraps the keys of one store's sets anew, under its lock.
func (a *application) rotateStore(ctx context.Context, s *settings, place store.Place, keys backupset.Keys, to *seal.Recipients) (err error) {
	held, release, err := backup.Lock(ctx, place, store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now(), Purpose: "key rotate"})
	if err != nil {
		return err
	}
	defer func() { err = a.keep(err, release()) }()
	ids, err := setsToRotate(held, place, s.Args().Slice(), keys)
	if err != nil {
		return err
	}
	result, err := a.rotate(held, place, ids, keys, to)
	a.log.Close()
	return a.keep(err, a.printRotated(s, place, result))
}

// newRecipients are who shall open the sets from now on. The folder of keys has
// what opens them now, so its recipients are not taken.
func (s *settings) newRecipients() (*seal.Recipients, error) {
	to := &seal.Recipients{}
	for _, key := range s.list("recipient", nil) {
		if err := to.Add(key); err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
	}
	if path := s.String("recipients-file"); path != "" {
		text, err := os.ReadFile(path) //nolint:gosec // the user names it
		if err != nil {
			return nil, fault.New(fault.Usage, "", "--recipients-file: %w", err)
		}
		if err := to.Add(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if path := s.String("new-passphrase-file"); path != "" {
		passphrase, err := readPassphrase(path)
		if err != nil {
			return nil, err
		}
		if err := to.AddPassphrase(passphrase, 0); err != nil {
			return nil, err
		}
	}
	if to.Empty() {
		return nil, fault.New(fault.Usage, "--recipient age1..., --recipients-file FILE or --new-passphrase-file FILE", "it was not said who shall open the sets from now on")
	}
	return to, to.Validate()
}

// setsToRotate are those that are named, or else all that are encrypted.
func setsToRotate(ctx context.Context, st store.Store, refs []string, keys backupset.Keys) ([]string, error) {
	var ids []string
	if len(refs) == 0 {
		entries, err := backupset.List(ctx, st)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Sealed != nil {
				ids = append(ids, e.ID)
			}
		}
	}
	for _, ref := range refs {
		id, _, err := backupset.Resolve(ctx, st, ref, backupset.Want{}, backupset.WithTrust(keys))
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (a *application) rotate(ctx context.Context, st store.Store, ids []string, keys backupset.Keys, to *seal.Recipients) (rotatedJSON, error) {
	result := rotatedJSON{Rotated: []string{}, Failed: []rotateError{}}
	var errs []error
	for _, id := range ids {
		err := context.Cause(ctx)
		if err == nil {
			err = rotateOne(ctx, st, id, keys, to)
		}
		if err != nil {
			errs = append(errs, err)
			result.Failed = append(result.Failed, rotateError{id, err.Error()})
			continue
		}
		result.Rotated = append(result.Rotated, id)
		a.log.Info("the key of a set was wrapped anew", report.F("set", id))
	}
	return result, errors.Join(errs...)
}

func rotateOne(ctx context.Context, st store.Store, id string, keys backupset.Keys, to *seal.Recipients) error {
	set, err := backupset.Open(ctx, st, id, backupset.WithKeys(keys))
	if err != nil {
		return err
	}
	if !set.Sealed() {
		return fault.New(fault.Usage, "", "backup set %s is not encrypted", id)
	}
	return backupset.Rewrap(ctx, set, to)
}

func (a *application) printRotated(s *settings, place store.Place, result rotatedJSON) error {
	result.Store = place.String()
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(result)
	}
	p := &printer{w: a.stdout}
	for _, id := range result.Rotated {
		p.line("rotated %s", id)
	}
	for _, f := range result.Failed {
		p.line("FAILED  %s", f.Set)
	}
	if len(result.Rotated)+len(result.Failed) == 0 {
		p.line("%s holds no encrypted set.", place)
	}
	return p.err
}
