// SPDX-License-Identifier: Apache-2.0
/// The RISC-V IOMMU's registers, in-memory structures, commands and records, as its specification
/// writes them, for the model and for whoever drives it.
///
/// Edition: version 20260222; section numbers are that text's. Words are little-endian in memory.
#pragma once

#include "tandem/iommu/spec_commands.hpp"
#include "tandem/iommu/spec_directories.hpp"
#include "tandem/iommu/spec_msi.hpp"
#include "tandem/iommu/spec_page_tables.hpp"
#include "tandem/iommu/spec_records.hpp"
#include "tandem/iommu/spec_registers.hpp"
