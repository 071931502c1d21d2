// Copyright (c) the restorepoint.core authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	version     = "1.0.0"
	defaultSize = int64(1 << 20)
	// maximum is the size that no volume may reach: what asks for more stays Pending, with the driver's own words.
	maximum = int64(1 << 40)
)

// identity answers who this is.
type identity struct {
	csi.UnimplementedIdentityServer
	name string
}

func (i *identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.name, VendorVersion: version}, nil
}

func (i *identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (i *identity) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	services := []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE,
	}
	answer := &csi.GetPluginCapabilitiesResponse{}
	for _, service := range services {
		answer.Capabilities = append(answer.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: service}},
		})
	}
	return answer, nil
}

// controller makes and removes volumes and snapshots.
type controller struct {
	csi.UnimplementedControllerServer
	store *store
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	calls := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, call := range calls {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: call}},
		})
	}
	return answer, nil
}

func (c *controller) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := lacking("a volume's id", request.GetVolumeId() == ""); err != nil {
		return nil, err
	}
	if err := lacking("capabilities", len(request.GetVolumeCapabilities()) == 0); err != nil {
		return nil, err
	}
	c.store.Lock()
	defer c.store.Unlock()
	found, err := c.store.find(volume, request.GetVolumeId())
	if err != nil {
		return nil, internal(err)
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", request.GetVolumeId())
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.GetVolumeCapabilities()},
	}, nil
}

// origin returns where a new volume's data come from, and the size below which it must not be.
func (c *controller) origin(source *csi.VolumeContentSource) (kind, id string, least int64, err error) {
	switch {
	case source.GetSnapshot() != nil:
		kind, id = snapshot, source.GetSnapshot().GetSnapshotId()
	case source.GetVolume() != nil:
		kind, id = volume, source.GetVolume().GetVolumeId()
	default:
		return "", "", 0, nil
	}
	found, err := c.store.find(kind, id)
	if err != nil {
		return "", "", 0, internal(err)
	}
	if found == nil {
		return "", "", 0, status.Errorf(codes.NotFound, "there is no %s in %s", id, kind)
	}
	return kind, id, found.Size, nil
}

func (c *controller) CreateVolume(
	_ context.Context, request *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if err := lacking("a name", request.GetName() == ""); err != nil {
		return nil, err
	}
	if err := lacking("capabilities", len(request.GetVolumeCapabilities()) == 0); err != nil {
		return nil, err
	}
	c.store.Lock()
	defer c.store.Unlock()
	size := max(request.GetCapacityRange().GetRequiredBytes(), 0)
	if size == 0 {
		size = defaultSize
	}
	if size >= maximum {
		return nil, status.Errorf(codes.OutOfRange, "a volume of %d bytes is too large: less than %d are allowed", size, maximum)
	}
	kind, id, least, err := c.origin(request.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	if size < least {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are too few for what %s holds: it needs %d", size, id, least)
	}
	found, err := c.store.find(volume, request.GetName())
	if err != nil {
		return nil, internal(err)
	}
	if found != nil && (found.Size < size || found.Source != id) {
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists, with another size or source", found.ID)
	}
	if found == nil {
		from := ""
		if id != "" {
			from = c.store.path(kind, id)
		}
		found = &record{ID: request.GetName(), Size: size, Source: id}
		if err := c.store.add(volume, found, from); err != nil {
			return nil, internal(err)
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      found.ID,
		CapacityBytes: found.Size,
		ContentSource: request.GetVolumeContentSource(),
		VolumeContext: map[string]string{"folder": c.store.path(volume, found.ID)},
	}}, nil
}

func (c *controller) DeleteVolume(
	_ context.Context, request *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	if err := lacking("a volume's id", request.GetVolumeId() == ""); err != nil {
		return nil, err
	}
	c.store.Lock()
	defer c.store.Unlock()
	if err := c.store.remove(volume, request.GetVolumeId()); err != nil {
		return nil, internal(err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// take copies a volume into a snapshot; one of that name and source that is there already is the answer.
func (s *store) take(name, source, group string) (*record, error) {
	from, err := s.find(volume, source)
	if err != nil {
		return nil, internal(err)
	}
	if from == nil {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", source)
	}
	found, err := s.find(snapshot, name)
	if err != nil {
		return nil, internal(err)
	}
	if found != nil && found.Source != source {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s exists, of volume %s", name, found.Source)
	}
	if found == nil {
		found = &record{ID: name, Size: from.Size, Source: source, Group: group}
		if err := s.add(snapshot, found, s.path(volume, source)); err != nil {
			return nil, internal(err)
		}
	}
	return found, nil
}

// shown returns a snapshot as CSI has it.
func (s *store) shown(found *record) *csi.Snapshot {
	text := found.ID + " " + found.Source
	return &csi.Snapshot{
		SnapshotId:      found.ID,
		SourceVolumeId:  found.Source,
		SizeBytes:       found.Size,
		CreationTime:    timestamppb.New(found.Created),
		ReadyToUse:      !faultFor(s.folder, "CreateSnapshot", text).Unready,
		GroupSnapshotId: found.Group,
	}
}

func (c *controller) CreateSnapshot(
	_ context.Context, request *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if err := lacking("a name", request.GetName() == ""); err != nil {
		return nil, err
	}
	if err := lacking("a volume's id", request.GetSourceVolumeId() == ""); err != nil {
		return nil, err
	}
	c.store.Lock()
	defer c.store.Unlock()
	found, err := c.store.take(request.GetName(), request.GetSourceVolumeId(), "")
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: c.store.shown(found)}, nil
}

func (c *controller) DeleteSnapshot(
	_ context.Context, request *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if err := lacking("a snapshot's id", request.GetSnapshotId() == ""); err != nil {
		return nil, err
	}
	c.store.Lock()
	defer c.store.Unlock()
	found, err := c.store.find(snapshot, request.GetSnapshotId())
	if err != nil {
		return nil, internal(err)
	}
	if found != nil && found.Group != "" {
		return nil, status.Errorf(codes.InvalidArgument, "snapshot %s goes with its group %s only", found.ID, found.Group)
	}
	if err := c.store.remove(snapshot, request.GetSnapshotId()); err != nil {
		return nil, internal(err)
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) ListSnapshots(
	_ context.Context, request *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	c.store.Lock()
	defer c.store.Unlock()
	all, err := c.store.all(snapshot)
	if err != nil {
		return nil, internal(err)
	}
	wanted := slices.DeleteFunc(all, func(each *record) bool {
		id, source := request.GetSnapshotId(), request.GetSourceVolumeId()
		return (id != "" && each.ID != id) || (source != "" && each.Source != source)
	})
	first := 0
	if token := request.GetStartingToken(); token != "" {
		first, err = strconv.Atoi(token)
		if err != nil || first < 0 || first > len(wanted) {
			return nil, status.Errorf(codes.Aborted, "no list goes on at %q", token)
		}
	}
	answer := &csi.ListSnapshotsResponse{}
	for place, each := range wanted[first:] {
		if most := int(request.GetMaxEntries()); most > 0 && place == most {
			answer.NextToken = strconv.Itoa(first + place)
			break
		}
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: c.store.shown(each)})
	}
	return answer, nil
}

// groups makes and removes snapshots of several volumes, taken while nothing else is done to any of them.
type groups struct {
	csi.UnimplementedGroupControllerServer
	store *store
}

func (g *groups) GroupControllerGetCapabilities(
	context.Context, *csi.GroupControllerGetCapabilitiesRequest,
) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	call := &csi.GroupControllerServiceCapability_RPC{
		Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
	}
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{
		{Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: call}},
	}}, nil
}

// shownGroup returns a group as CSI has it.
func (g *groups) shownGroup(found *record) (*csi.VolumeGroupSnapshot, error) {
	answer := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: found.ID,
		CreationTime:    timestamppb.New(found.Created),
		ReadyToUse:      true,
	}
	for _, id := range found.Members {
		member, err := g.store.find(snapshot, id)
		if err != nil {
			return nil, internal(err)
		}
		if member == nil {
			return nil, status.Errorf(codes.NotFound, "group %s lacks its snapshot %s", found.ID, id)
		}
		shown := g.store.shown(member)
		answer.Snapshots = append(answer.Snapshots, shown)
		answer.ReadyToUse = answer.ReadyToUse && shown.ReadyToUse
	}
	return answer, nil
}

func (g *groups) CreateVolumeGroupSnapshot(
	_ context.Context, request *csi.CreateVolumeGroupSnapshotRequest,
) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if err := lacking("a name", request.GetName() == ""); err != nil {
		return nil, err
	}
	g.store.Lock()
	defer g.store.Unlock()
	found, err := g.store.find(group, request.GetName())
	if err != nil {
		return nil, internal(err)
	}
	if found == nil {
		found = &record{ID: request.GetName()}
		for _, source := range request.GetSourceVolumeIds() {
			member, err := g.store.take(found.ID+"-"+source, source, found.ID)
			if err != nil {
				for _, id := range found.Members {
					_ = g.store.remove(snapshot, id)
				}
				return nil, err
			}
			found.Members = append(found.Members, member.ID)
		}
		if err := g.store.add(group, found, ""); err != nil {
			return nil, internal(err)
		}
	}
	shown, err := g.shownGroup(found)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: shown}, nil
}

func (g *groups) DeleteVolumeGroupSnapshot(
	_ context.Context, request *csi.DeleteVolumeGroupSnapshotRequest,
) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if err := lacking("a group's id", request.GetGroupSnapshotId() == ""); err != nil {
		return nil, err
	}
	g.store.Lock()
	defer g.store.Unlock()
	found, err := g.store.find(group, request.GetGroupSnapshotId())
	if err != nil {
		return nil, internal(err)
	}
	if found != nil {
		for _, id := range found.Members {
			if err := g.store.remove(snapshot, id); err != nil {
				return nil, internal(err)
			}
		}
		if err := g.store.remove(group, found.ID); err != nil {
			return nil, internal(err)
		}
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

func (g *groups) GetVolumeGroupSnapshot(
	_ context.Context, request *csi.GetVolumeGroupSnapshotRequest,
) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if err := lacking("a group's id", request.GetGroupSnapshotId() == ""); err != nil {
		return nil, err
	}
	g.store.Lock()
	defer g.store.Unlock()
	found, err := g.store.find(group, request.GetGroupSnapshotId())
	if err != nil {
		return nil, internal(err)
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "there is no group %s", request.GetGroupSnapshotId())
	}
	shown, err := g.shownGroup(found)
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: shown}, nil
}

// lacking is the error of a request that lacks an argument, which CSI says to refuse; nil where it has it.
func lacking(argument string, lacks bool) error {
	if lacks {
		return status.Errorf(codes.InvalidArgument, "the request lacks %s", argument)
	}
	return nil
}

func internal(err error) error {
	return status.Error(codes.Internal, err.Error())
}
