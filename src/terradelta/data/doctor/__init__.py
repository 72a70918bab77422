"""The data-set check: finds problems of a data set and writes a clean copy."""

from terradelta.data.doctor.examination import examine
from terradelta.data.doctor.findings import DatasetFinding, DoctorReport
from terradelta.data.doctor.repair import doctor, repair

__all__ = ["DatasetFinding", "DoctorReport", "doctor", "examine", "repair"]
