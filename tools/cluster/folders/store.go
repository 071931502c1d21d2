// Copyright (c) the restorepoint.core authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"
)

// record is what is known of a volume, a snapshot or a group, beside its data.
type record struct {
	ID      string    `json:"id"`
	Size    int64     `json:"size"`              // bytes
	Source  string    `json:"source,omitempty"`  // a snapshot's volume, or what a volume was made from
	Group   string    `json:"group,omitempty"`   // the group that a snapshot belongs to
	Members []string  `json:"members,omitempty"` // the snapshots of a group
	Created time.Time `json:"created"`
}

// The kinds of record. A volume and a snapshot have a folder of the same name, with their data.
const (
	volume   = "volumes"
	snapshot = "snapshots"
	group    = "groups"
)

// An ID is the name of a folder.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// store keeps volumes, snapshots and groups in a folder:
// KIND/ID is the data, records/KIND/ID.json the record, which is written last and removed first.
type store struct {
	sync.Mutex
	folder string
}

func newStore(folder string) (*store, error) {
	if folder == "" {
		return nil, errors.New("it is not named")
	}
	for _, kind := range []string{volume, snapshot, group} {
		for _, each := range []string{filepath.Join(folder, "records", kind), filepath.Join(folder, kind)} {
			if err := os.MkdirAll(each, 0o755); err != nil {
				return nil, err
			}
		}
	}
	return &store{folder: folder}, os.MkdirAll(filepath.Join(folder, "faults"), 0o755)
}

func (s *store) path(kind, id string) string {
	return filepath.Join(s.folder, kind, id)
}

func (s *store) recordPath(kind, id string) string {
	return filepath.Join(s.folder, "records", kind, id+".json")
}

// find returns a record, or nil where there is none.
func (s *store) find(kind, id string) (*record, error) {
	if !validID.MatchString(id) {
		return nil, nil
	}
	content, err := os.ReadFile(s.recordPath(kind, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &record{}
	return found, json.Unmarshal(content, found)
}

// all returns the records of a kind, the oldest first.
func (s *store) all(kind string) ([]*record, error) {
	entries, err := os.ReadDir(filepath.Join(s.folder, "records", kind))
	if err != nil {
		return nil, err
	}
	found := []*record{}
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord {
			continue
		}
		each, err := s.find(kind, id)
		if err != nil {
			return nil, err
		}
		if each != nil {
			found = append(found, each)
		}
	}
	sort.SliceStable(found, func(a, b int) bool { return found[a].Created.Before(found[b].Created) })
	return found, nil
}

// add makes a record, with the data of the folder from, or an empty folder where from is "".
func (s *store) add(kind string, made *record, from string) error {
	if !validID.MatchString(made.ID) {
		return fmt.Errorf("%q cannot be the name of a folder", made.ID)
	}
	made.Created = time.Now().UTC()
	if kind != group {
		if err := os.RemoveAll(s.path(kind, made.ID)); err != nil {
			return err
		}
		if err := copyTree(from, s.path(kind, made.ID)); err != nil {
			return err
		}
	}
	content, err := json.Marshal(made)
	if err != nil {
		return err
	}
	hidden := s.recordPath(kind, made.ID) + ".new"
	if err := os.WriteFile(hidden, content, 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, s.recordPath(kind, made.ID))
}

// remove takes a record away, and its data. What is not there is no error.
func (s *store) remove(kind, id string) error {
	if !validID.MatchString(id) {
		return nil
	}
	if err := os.Remove(s.recordPath(kind, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(s.path(kind, id))
}

// copyTree copies folders, regular files and symbolic links with their modes. Without a source it makes a folder.
func copyTree(source, target string) error {
	if source == "" {
		return os.MkdirAll(target, 0o777)
	}
	return filepath.WalkDir(source, func(from string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, from)
		if err != nil {
			return err
		}
		to := filepath.Join(target, relative)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return os.MkdirAll(to, info.Mode().Perm()|0o700)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(from)
			if err != nil {
				return err
			}
			return os.Symlink(link, to)
		case info.Mode().IsRegular():
			return copyFile(from, to, info.Mode().Perm())
		}
		return fmt.Errorf("%s is neither a folder, a file nor a link", from)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
